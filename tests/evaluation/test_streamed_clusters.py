# SPDX-License-Identifier: Apache-2.0
"""k-means over blocks: a fixed point of Lloyd's algorithm inside every super-class, in both views."""

import jax
import numpy as np
import pytest
from sklearn.cluster import KMeans

from ncjax.collapse.reading import Labelled
from ncjax.evaluation import streamed_clusters
from ncjax.evaluation.streamed_clusters import SuperClasses, cluster_streamed, nearest_clusters

SIZES = np.array([3, 1, 2])


def made(noise: float, offset: float = 0.0, n: int = 3000):
    """Clusters inside super-classes, the rows in no order; every 50th does not count."""
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 3, n).astype(np.int32)
    inner = rng.integers(0, 6, n) % SIZES[owner]
    rows = 5 * rng.normal(size=(3, 8))[owner] + 2 * rng.normal(size=(3, 3, 8))[owner, inner]
    weights = (np.arange(n) % 50 > 0).astype(np.float32)
    rows = np.where(weights[:, None] > 0, rows + noise * rng.normal(size=(n, 8)) + offset, np.nan)
    means = np.stack([rows[(owner == group) & (weights > 0)].mean(axis=0) for group in range(3)])
    return Labelled(rows.astype(np.float32), owner, weights), SuperClasses(owner, SIZES, means), inner


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(streamed_clusters, "BLOCK_BYTES", 4 * 8 * 400)


def seen(view: str, data: Labelled, groups: SuperClasses) -> np.ndarray:
    rows = np.asarray(data.rows, np.float64) - groups.means[groups.owner]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if view == "normalised" else rows


@pytest.mark.parametrize("noise", [0.2, 2.0])
def test_centroids_are_means_of_their_clusters_and_as_good_as_scikit_learns(noise):
    data, groups, _ = made(noise)
    found = cluster_streamed(jax.random.key(0), data, groups, ("raw", "normalised"), 5, 1)
    for view, one in found.items():
        rows, inertia = seen(view, data, groups), 0.0
        assert one.converged
        for group, size in enumerate(SIZES):
            kept = (groups.owner == group) & (data.counts > 0)
            inertia += KMeans(size, n_init=10, random_state=0).fit(rows[kept]).inertia_
            own = np.flatnonzero(groups.of_clusters == group)
            distances = ((rows[kept][:, None] - one.centroids[own][None]) ** 2).sum(axis=2)
            np.testing.assert_array_equal(one.train[kept], own[distances.argmin(axis=1)])
            for cluster in own:
                mean = rows[kept & (one.train == cluster)].mean(axis=0)
                np.testing.assert_allclose(one.centroids[cluster], mean, atol=0.1 * noise)
        assert one.inertia == pytest.approx(inertia, rel=2e-3)


def test_rows_of_another_split_join_the_nearest_cluster_of_their_super_class():
    data, groups, inner = made(0.1)
    found = cluster_streamed(jax.random.key(0), data, groups, ("raw",), 5, 1)["raw"]
    labels = nearest_clusters(data, groups, {"raw": found.centroids})["raw"]
    kept = data.counts > 0
    np.testing.assert_array_equal(labels[kept], found.train[kept])
    np.testing.assert_array_equal(groups.of_clusters[labels[kept]], groups.owner[kept])
    for cluster in range(SIZES.sum()):
        assert len(np.unique(inner[kept & (labels == cluster)])) == 1


def test_clusters_far_closer_to_each_other_than_rounding_sees_are_found_in_float64():
    """Two clusters 1e-3 apart, and a few rows of their super-class at 1e4."""
    rng = np.random.default_rng(0)
    inner = np.arange(400) % 2
    rows = np.zeros((404, 3), np.float32)
    rows[:400, 0] = 1e-3 * inner + 1e-5 * rng.normal(size=400)
    rows[400:, 1] = 1e4
    groups = SuperClasses(np.zeros(404, np.int32), np.array([3]), rows.mean(axis=0, dtype=np.float64)[None])
    data = Labelled(rows, groups.owner)
    found = cluster_streamed(jax.random.key(0), data, groups, ("raw",), 5, 2**30)["raw"]
    assert {len(np.unique(found.train[:400][inner == i])) for i in range(2)} == {1}
    assert len(np.unique(found.train)) == 3


def test_passes_end_and_say_so(monkeypatch):
    monkeypatch.setattr(streamed_clusters, "MOST_PASSES", 1)
    monkeypatch.setattr(streamed_clusters, "TOL", 0.0)
    data, groups, _ = made(4.0)
    found = cluster_streamed(jax.random.key(0), data, groups, ("raw",), 1, 1)["raw"]
    assert not found.converged
