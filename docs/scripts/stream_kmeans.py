# SPDX-License-Identifier: Apache-2.0
"""k-means of a file larger than memory: `python docs/scripts/stream_kmeans.py FILE [N]` writes and clusters it.

Ten clusters in 512 dimensions, N points (10 million by default: a file of 20.5 GB). Memory is sampled meanwhile:
anonymous pages, which the process holds, apart from pages of the file, which the system keeps while there is room.
"""

import json
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np

from ncjax.cluster import stream_kmeans

D, K, BLOCK = 512, 10, 2**17


def write(path: Path, n: int) -> np.ndarray:
    """Points, block by block, unless the file is there; returns the true clusters."""
    rng = np.random.default_rng(0)
    centres = 0.15 * rng.standard_normal((K, D), np.float32)
    labels = rng.integers(0, K, n).astype(np.int32)
    if not path.exists():
        points = np.lib.format.open_memmap(path, "w+", np.float32, (n, D))
        for first in range(0, n, BLOCK):
            part = labels[first : first + BLOCK]
            points[first : first + BLOCK] = centres[part] + rng.standard_normal((len(part), D), np.float32)
        points.flush()
    return labels


def watch(peaks: dict[str, int], done: threading.Event) -> None:
    """The most of each kind of memory, in MiB."""
    while not done.wait(0.2):
        lines = Path("/proc/self/status").read_text().splitlines()
        for name in ("RssAnon", "RssFile"):
            (kib,) = (int(line.split()[1]) for line in lines if line.startswith(name))
            peaks[name] = max(peaks.get(name, 0), kib // 1024)


def main() -> None:
    """Write, cluster, compare."""
    path, n = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    labels = write(path, n)
    peaks: dict[str, int] = {}
    done = threading.Event()
    threading.Thread(target=watch, args=(peaks, done), daemon=True).start()
    started = time.perf_counter()
    found = stream_kmeans(jax.random.key(0), np.load(path, mmap_mode="r"), K)
    secs = time.perf_counter() - started
    done.set()
    counts = np.zeros((K, K), np.int64)
    np.add.at(counts, (np.asarray(found.labels), labels), 1)
    steps = int(found.iterations)
    print(
        json.dumps(
            {
                "n": n,
                "gb": 4e-9 * n * D,
                "secs": round(secs, 1),
                "steps": steps,
                "gb_per_s": round(4e-9 * n * D * (steps + 1) / secs, 2),
                "converged": bool(found.converged),
                "purity": round(float(counts.max(axis=0).sum() / n), 5),
                "peak_mib": peaks,
                "jax": jax.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
