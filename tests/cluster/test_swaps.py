# SPDX-License-Identifier: Apache-2.0
"""Swaps leave poor local optima, and what they promise is what they give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from ncjax.cluster import swaps
from ncjax.cluster.lloyd import make_restarts
from ncjax.cluster.points import centre_if_small, make_points
from tests.kinds import make


def points_of(rows, weights=None):
    weights = np.ones(len(rows), np.float32) if weights is None else weights
    return centre_if_small(make_points(jnp.asarray(rows, jnp.float32), jnp.asarray(weights), None))


@pytest.mark.parametrize("seed", range(5))
def test_inertia_after_an_exchange_is_that_of_all_distances(seed):
    rng = np.random.default_rng(seed)
    rows, weights = rng.normal(size=(200, 5)), rng.integers(0, 3, 200).astype(np.float32)
    points = points_of(rows, weights)
    centred = np.asarray(points.rows, np.float64)
    centroids, candidates = rng.normal(size=(4, 5)) / 4, rng.normal(size=(6, 5)) / 4
    nearest = swaps._nearest_two(points, jnp.asarray(centroids, jnp.float32))
    found = swaps._inertia_after(points, jnp.asarray(candidates, jnp.float32), nearest, 4, None)
    for i, candidate in enumerate(candidates):
        for j in range(4):
            after = centroids.copy()
            after[j] = candidate
            wanted = weights @ (pairwise_distances(centred, after) ** 2).min(axis=1)
            assert float(found[i, j]) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("dimensions", [1, 16, *(pytest.param(d, marks=pytest.mark.slow) for d in (2, 64))])
def test_two_centroids_in_one_blob_and_none_in_another_are_mended(dimensions):
    rng = np.random.default_rng(0)
    centres = 8 * rng.normal(size=(5, dimensions)) / np.sqrt(dimensions) + 20 * np.arange(5)[:, None]
    labels = np.arange(1000) % 5
    points = points_of(centres[labels] + rng.normal(size=(1000, dimensions)))
    rows = np.asarray(points.rows)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(5)])
    poor = np.concatenate([means[:3], means[2:3] + 1e-3, means[3:].mean(axis=0, keepdims=True)])
    found, _ = swaps.run_lloyd_with_swaps(
        jax.random.key(0), points, make_restarts(jnp.asarray(poor)[None]), jnp.float32(0), 300, None, from_sample=False
    )
    ended = np.asarray(found.centroids[0])
    np.testing.assert_allclose(ended[np.lexsort(ended.T[::-1])], means[np.lexsort(means.T[::-1])], atol=1e-4)
    assert bool(found.converged[0])


@pytest.mark.parametrize("kind", ["blobs", "Student t", "repeated", "fewer distinct than clusters"])
@pytest.mark.parametrize("k", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_the_inertia_never_rises_and_the_limit_of_iterations_holds(kind, k):
    rows, weights = make(kind, 500, 4, 6)
    points = points_of(rows, weights)
    start = make_restarts(points.rows[None, :k])
    ended = {
        most: swaps.run_lloyd_with_swaps(
            jax.random.key(1), points, start, jnp.float32(0), most, None, from_sample=False
        )[0]
        for most in (1, 5, 300)
    }
    inertias = [
        (pairwise_distances(np.asarray(points.rows, np.float64), np.asarray(found.centroids[0], np.float64)) ** 2)
        .min(axis=1)
        .sum()
        for found in ended.values()
    ]
    assert all(int(found.iterations[0]) <= most for most, found in ended.items())
    assert inertias[2] <= inertias[1] * (1 + 1e-5) + 1e-9
    assert inertias[1] <= inertias[0] * (1 + 1e-5) + 1e-9
