# SPDX-License-Identifier: Apache-2.0
"""Collapse of a file larger than memory: `python docs/scripts/stream_collapse.py FILE [N]`.

Ten Gaussian classes far from 0 in 64 dimensions, N points (10 million by default). Writes the file, measures it, prints
the time and the memory.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from large_file import watched, write_classes

from ncjax.collapse.measure import measure
from ncjax.collapse.reading import Labelled

D, CLASSES = 64, 10


def main() -> None:
    """Write, measure, print."""
    path, n = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    labels = write_classes(path, n, 100 + np.random.default_rng(0).standard_normal((CLASSES, D), np.float32))
    rows = np.load(path, mmap_mode="r")
    found, cost = watched(lambda: measure(Labelled(rows, labels), None, (0, 1, 2, 3, 4) * 2))
    (ratio,) = (one.value for one in found.measurements if (one.metric, one.level) == ("nc1_ratio", "fine"))
    print(json.dumps({"n": n, "d": D, "nc1_ratio": ratio, **cost._asdict(), "jax": jax.__version__}))


if __name__ == "__main__":
    main()
