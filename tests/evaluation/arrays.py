# SPDX-License-Identifier: Apache-2.0
"""Small sets of features with known structure."""

import numpy as np
from sklearn.datasets import load_digits

from ncjax.features.feature_set import FeatureSet
from ncjax.results import Evaluation, Row

MOD5 = (0, 1, 2, 3, 4) * 2


def split_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every second digit for training, the others for the test."""
    data = load_digits()
    points, labels = data.data.astype(np.float32), data.target.astype(np.int32)
    return points[::2], labels[::2], points[1::2], labels[1::2]


def pairs(separation: float, noise: float = 0.3, seed: int = 0, count: int = 300) -> FeatureSet:
    """Ten classes whose super-classes (mod 5) are far apart and whose pairs are `separation` apart."""
    rng = np.random.default_rng(seed)
    coarse, fine = 8 * rng.normal(size=(5, 12)), rng.normal(size=(10, 12))
    fine *= separation / np.linalg.norm(fine[:5] - fine[5:], axis=1).mean()

    def split(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 10, n).astype(np.int32)
        points = coarse[labels % 5] + fine[labels] + noise * rng.normal(size=(n, 12))
        return points.astype(np.float32), labels

    return FeatureSet.from_arrays(*split(count), *split(count // 2))


def arrays_of(features: FeatureSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and labels of both splits of the first member."""
    assert features.test is not None
    splits = (features.train, features.test)
    (x, y), (z, w) = ((np.asarray(split.layers["features"][0]), split.labels) for split in splits)
    return x, y, z, w


def only(evaluation: Evaluation) -> Row:
    """The only row."""
    (row,) = evaluation.rows
    return row
