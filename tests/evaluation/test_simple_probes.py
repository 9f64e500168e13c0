# SPDX-License-Identifier: Apache-2.0
"""Probes against scikit-learn's, and how far measures vary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ncjax.evaluation.simple_probes import few_shot, nearest_neighbours, ridge_probe


def digits():
    data = load_digits()
    points, labels = data.data.astype(np.float32), data.target.astype(np.int32)
    return points[::2], labels[::2], points[1::2], labels[1::2]


@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_ridge_probe_is_scikit_learns(alpha):
    x, y, z, _ = digits()
    theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha)).fit(x.astype(np.float64), y)
    ours = ridge_probe(jnp.asarray(x), jnp.asarray(y), 10, alpha=alpha)
    np.testing.assert_allclose(ours.scores(jnp.asarray(z)), theirs.decision_function(z.astype(np.float64)), atol=2e-3)


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_nearest_neighbours_are_scikit_learns(neighbours):
    x, y, z, _ = digits()
    ours = nearest_neighbours(jnp.asarray(x), jnp.asarray(y), jnp.asarray(z), 10, neighbours)
    theirs = KNeighborsClassifier(neighbours, algorithm="brute").fit(x.astype(np.float64), y).predict(z)
    assert (np.asarray(ours) == theirs).mean() >= 0.999  # one of equal distances may be another


def test_few_shot_is_the_nearest_of_the_means():
    """With all examples drawn, an episode is a nearest-mean classifier; with one each, it is worse."""
    x, y, z, w = digits()
    means = np.stack([x[y == c].mean(0) for c in range(10)])
    wanted = (((z[:, None] - means[None]) ** 2).sum(-1).argmin(1) == w).mean()
    arrays = [jnp.asarray(a) for a in (x, y, z, w)]
    found = few_shot(jax.random.key(0), *arrays, 10, shots=len(x), episodes=2)
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    one = few_shot(jax.random.key(0), *arrays, 10, shots=1, episodes=20)
    assert 0.3 < float(one.mean()) < wanted - 0.1
