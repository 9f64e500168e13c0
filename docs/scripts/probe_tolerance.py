# SPDX-License-Identifier: Apache-2.0
"""Whether accuracies of linear probes depend on the tolerance: `python docs/scripts/probe_tolerance.py [FILE.npz ...]`.

Fits digits, and files with `train`, `train_y`, `test` and `test_y`, to several tolerances; prints JSON.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.bench.kmeans import load_features
from ncjax.evaluation.linear_probe import fit_linear_probe

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)


def main() -> None:
    """Fit and print."""
    found = {"digits": rows(*digits())}
    for file in map(Path, sys.argv[1:]):
        found[file.stem] = rows(*load_features(file, "train"), *load_features(file, "test"))
    print(json.dumps({"jax": jax.__version__, "sets": found}, indent=1))


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every second digit for the test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.data[::2], data.target[::2], data.data[1::2], data.target[1::2]


def rows(x: np.ndarray, y: np.ndarray, z: np.ndarray, w: np.ndarray) -> list[dict[str, float]]:
    """Of each tolerance: passes, loss, accuracies."""
    points, tested = (jnp.asarray(part, jnp.float32) for part in (x, z))
    found = []
    for tol in TOLERANCES:
        probe = fit_linear_probe(points, jnp.asarray(y, jnp.int32), int(y.max()) + 1, tol=tol)
        train, test = (float((np.asarray(probe.predict(a)) == b).mean()) for a, b in ((points, y), (tested, w)))
        one = {"tol": tol, "passes": int(probe.iterations), "loss": float(probe.loss)}
        found.append({**one, "train_accuracy": train, "test_accuracy": test})
    return found


if __name__ == "__main__":
    main()
