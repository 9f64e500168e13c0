# SPDX-License-Identifier: Apache-2.0
"""Collapse of a file larger than memory: `python docs/scripts/stream_collapse.py FILE [N]`.

Writes the file, measures it, prints the time and the memory.
"""

import json
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np

from ncjax.collapse.measure import Labelled, measure

D, CLASSES, BLOCK = 64, 10, 2**17


def write(path: Path, n: int) -> np.ndarray:
    """Ten Gaussian classes far from 0, block by block, unless the file is there; returns the labels."""
    rng = np.random.default_rng(0)
    centres = 100 + rng.standard_normal((CLASSES, D), np.float32)
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    if not path.exists():
        points = np.lib.format.open_memmap(path, "w+", np.float32, (n, D))
        for first in range(0, n, BLOCK):
            part = labels[first : first + BLOCK]
            points[first : first + BLOCK] = centres[part] + rng.standard_normal((len(part), D), np.float32)
        points.flush()
    return labels


def watch(peaks: dict[str, int], done: threading.Event) -> None:
    """The most memory that the process holds, without pages of the file, in MiB."""
    while not done.wait(0.1):
        (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
        peaks["anonymous_mib"] = max(peaks.get("anonymous_mib", 0), int(line.split()[1]) // 1024)


def main() -> None:
    """Write, measure, print."""
    path, n = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    labels = write(path, n)
    peaks: dict[str, int] = {}
    done = threading.Event()
    threading.Thread(target=watch, args=(peaks, done), daemon=True).start()
    started = time.perf_counter()
    found = measure(Labelled(np.load(path, mmap_mode="r"), labels), None, (0, 1, 2, 3, 4) * 2)
    secs = time.perf_counter() - started
    done.set()
    (ratio,) = (one.value for one in found.measurements if (one.metric, one.level) == ("nc1_ratio", "fine"))
    print(json.dumps({"n": n, "d": D, "secs": round(secs, 1), "nc1_ratio": ratio, **peaks, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
