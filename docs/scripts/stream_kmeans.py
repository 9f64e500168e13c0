# SPDX-License-Identifier: Apache-2.0
"""k-means of a file larger than memory: `python docs/scripts/stream_kmeans.py FILE [N]` writes and clusters it.

Ten clusters in 512 dimensions, N points (10 million by default: a file of 20.5 GB). Memory is sampled meanwhile:
anonymous pages, which the process holds, apart from pages of the file, which the system keeps while there is room.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from large_file import watched, write_classes

from ncjax.cluster import stream_kmeans

D, K = 512, 10


def main() -> None:
    """Write, cluster, compare."""
    path, n = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    labels = write_classes(path, n, 0.15 * np.random.default_rng(0).standard_normal((K, D), np.float32))
    rows = np.load(path, mmap_mode="r")
    found, cost = watched(lambda: jax.block_until_ready(stream_kmeans(jax.random.key(0), rows, K)))
    counts = np.zeros((K, K), np.int64)
    np.add.at(counts, (np.asarray(found.labels), labels), 1)
    steps, gb = int(found.iterations), 4e-9 * n * D
    shown = {"n": n, "gb": gb, "steps": steps, "gb_per_s": round(gb * (steps + 1) / cost.secs, 2)}
    shown |= {"converged": bool(found.converged), "purity": round(float(counts.max(axis=0).sum() / n), 5)}
    print(json.dumps({**shown, **cost._asdict(), "jax": jax.__version__}))


if __name__ == "__main__":
    main()
