# SPDX-License-Identifier: Apache-2.0
"""Kinds of points on which k-means has to be as good as scikit-learn's, of any size."""

import numpy as np


def _blobs(rng, n, d, k, spread):
    labels = rng.integers(0, k, n)
    return spread * rng.normal(size=(k, d))[labels] + rng.normal(size=(n, d)), labels


def _sorted(rng, n, d, k):
    points, labels = _blobs(rng, n, d, k, 3.0)
    return points[np.argsort(labels, kind="stable")]


def _in_turns(rng, n, d, k):
    return 6 * rng.normal(size=(k, d))[np.arange(n) % k] + rng.normal(size=(n, d))


def _rare(rng, n, d, k, distance):
    """Groups of a thousandth of the points each, all but one of the clusters."""
    points, size = rng.normal(size=(n, d)), max(3, n // 1000)
    for group in range(k - 1):
        points[group * size : (group + 1) * size, group % d] += distance * (-1) ** group * (1 + group // d)
    return rng.permutation(points)


def _column(rng, n, d, k):
    points, _ = _blobs(rng, n, d, k, 1.0)
    points[:, d // 2] *= 1000
    return points


def _repeated(rng, n, d, distinct):
    return rng.normal(size=(distinct, d))[rng.integers(0, distinct, n)]


KINDS = {
    "blobs": lambda rng, n, d, k: _blobs(rng, n, d, k, 3.0)[0],
    "overlapping": lambda rng, n, d, k: _blobs(rng, n, d, k, 0.7)[0],
    "sorted": _sorted,
    "in turns": _in_turns,
    "in turns of another number": lambda rng, n, d, k: _in_turns(rng, n, d, k - 1),
    "rare": lambda rng, n, d, k: _rare(rng, n, d, k, 12.0),
    "rare and far": lambda rng, n, d, k: _rare(rng, n, d, k, 300.0),
    "Student t": lambda rng, n, d, k: rng.standard_t(2, size=(n, d)),
    "no clusters": lambda rng, n, d, k: rng.normal(size=(n, d)),
    "a column of another scale": _column,
    "repeated": lambda rng, n, d, k: _repeated(rng, n, d, 60 * k),
    "fewer distinct than clusters": lambda rng, n, d, k: _repeated(rng, n, d, k - 2),
}
MASKED = ("overlapping", "in turns", "Student t")  # where also most weights are 0, and the others are not


def make(kind, n, d, k, *, masked=False, seed=0):
    """Points, and weights: all 1, or 0 for nine of ten."""
    rng = np.random.default_rng(seed)
    points = KINDS[kind](rng, n, d, k).astype(np.float32)
    weights = (rng.integers(0, 10, n) == 0) * rng.integers(1, 4, n) if masked else np.ones(n)
    return points, weights.astype(np.float32)
