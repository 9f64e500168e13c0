# SPDX-License-Identifier: Apache-2.0
"""Features and labels that the tests of the room share."""

import jax.numpy as jnp
import numpy as np

from ncjax.collapse import class_statistics

SUPER = (0, 1, 2, 0, 1, 2, 2, 3)  # sizes 2, 2, 3 and 1
N, D = 240, 40


def statistics(features, labels, classes):
    return class_statistics(jnp.asarray(features), jnp.asarray(labels), classes)


def some(seed, spread=1.0, offset=0.0, n=N, classes=8, d=D):
    """Classes of unequal sizes, features of unequal scales."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) ** 2 % 97 % classes).astype(np.int32)
    scales = np.exp(rng.normal(size=d))
    x = 2 * rng.normal(size=(classes, d))[labels] + spread * rng.normal(size=(n, d))
    return (scales * x + offset).astype(np.float32), labels


def values(measured, split="train"):
    """What was measured of a split: `[level][metric]`, a list where a metric has several numbers."""
    found = {}
    for one in measured.measurements:
        if one.split == split:
            level = found.setdefault(one.level, {})
            if one.index is None:
                level[one.metric] = one.value
            else:
                level.setdefault(one.metric, []).append(one.value)
                assert len(level[one.metric]) == one.index + 1
    return found


def assert_same_values(found, wanted, rtol=1e-3, atol=1e-5):
    assert {level: list(metrics) for level, metrics in found.items()} == {
        level: list(metrics) for level, metrics in wanted.items()
    }
    for level, metrics in wanted.items():
        for name, value in metrics.items():
            ours, theirs = np.asarray(found[level][name], float), np.asarray(value, float)  # None is NaN
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=f"{level} {name}")
