# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score

from ncjax.cluster import kmeans, match_clusters
from ncjax.errors import UserError

KEY = jax.random.key(0)


def blobs(n=600, d=5, k=4, spread=1.0, seed=0):
    points, _ = make_blobs(n, d, centers=k, cluster_std=spread, random_state=seed)
    return points.astype(np.float32)


def ours(points, k, **options):
    return kmeans(KEY, jnp.asarray(points), k, **options)


def inertia_of(points, centroids, weights=1.0):
    """In float64."""
    points, centroids = np.asarray(points, np.float64), np.asarray(centroids, np.float64)
    return (weights * ((points[:, None] - centroids[None]) ** 2).sum(-1).min(1)).sum()


@pytest.mark.parametrize(
    ("points", "k"),
    [
        (blobs(), 4),
        (blobs(spread=4.0), 6),
        (load_digits().data.astype(np.float32), 10),
        (blobs(d=1), 3),
        (blobs(n=50), 1),
        (np.random.default_rng(0).uniform(size=(800, 3)).astype(np.float32), 12),
    ],
    ids=["separated", "overlapping", "digits", "one feature", "one cluster", "uniform"],
)
def test_inertia_is_scikit_learns_within_a_thousandth(points, k):
    theirs = KMeans(k, n_init=10, random_state=0).fit(points)
    found = ours(points, k)
    assert float(found.inertia) <= 1.001 * theirs.inertia_
    assert float(found.inertia) == pytest.approx(inertia_of(points, found.centroids), rel=1e-4)
    assert float(found.inertia) == float(found.restart_inertia.min())
    assert bool(found.converged)
    assert found.restart_inertia.shape == (10,)


def test_separated_clusters_are_scikit_learns():
    points = blobs(spread=0.5)
    theirs = KMeans(4, n_init=10, random_state=0).fit(points)
    assert adjusted_rand_score(theirs.labels_, np.asarray(ours(points, 4).labels)) == 1.0


def test_huge_offset_changes_nothing():
    points = blobs(spread=1.0)
    shifted = (points.astype(np.float64) + 4096).astype(np.float32)
    assert adjusted_rand_score(np.asarray(ours(points, 4).labels), np.asarray(ours(shifted, 4).labels)) == 1.0
    assert float(ours(shifted, 4).inertia) == pytest.approx(float(ours(points, 4).inertia), rel=1e-2)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_points_of_weight_0_are_absent(seed):
    rng = np.random.default_rng(seed)
    points, rubbish = blobs(60, 3, 3, seed=seed % 1000), rng.normal(size=(20, 3)).astype(np.float32) * 1e3
    weights = np.concatenate([np.ones(60), np.zeros(20)]).astype(np.float32)
    padded = ours(np.concatenate([points, rubbish]), 3, weights=jnp.asarray(weights))
    best = KMeans(3, n_init=10, random_state=0).fit(points).inertia_
    assert float(padded.inertia) <= 1.001 * best
    assert float(padded.inertia) == pytest.approx(inertia_of(points, padded.centroids), rel=1e-3)


def test_weights_count_points():
    points, counts = blobs(80, 2, 3), np.random.default_rng(0).integers(1, 5, 80)
    weighted = ours(points, 3, weights=jnp.asarray(counts, jnp.float32))
    repeated = ours(np.repeat(points, counts, axis=0), 3)
    assert float(weighted.inertia) == pytest.approx(float(repeated.inertia), rel=1e-3)


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_duplicates_and_empty_clusters(distinct):
    points = np.tile(np.arange(distinct, dtype=np.float32)[:, None], (20, 2))
    found = ours(points, 3)
    assert np.isfinite(np.asarray(found.centroids)).all()
    assert float(found.inertia) == pytest.approx(0 if distinct <= 3 else None, abs=1e-6)


def test_as_many_clusters_as_points():
    points = blobs(12, 3, 4)
    found = ours(points, 12)
    assert float(found.inertia) == pytest.approx(0, abs=1e-4)
    assert sorted(np.asarray(found.labels)) == list(range(12))


def test_several_problems_at_once_equal_each_alone():
    problems = np.stack([blobs(seed=seed) for seed in range(3)])
    together = kmeans(jax.random.split(KEY, 3), jnp.asarray(problems), 4)
    for i in range(3):
        alone = kmeans(jax.random.split(KEY, 3)[i], jnp.asarray(problems[i]), 4)
        assert float(together.inertia[i]) == pytest.approx(float(alone.inertia), rel=1e-4)
        np.testing.assert_array_equal(together.labels[i], alone.labels)


def test_same_key_same_answer():
    points = blobs(spread=4.0)
    for one, other in zip(ours(points, 5), ours(points, 5), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("points", "k", "message"),
    [
        (blobs(5), 6, "k is 6"),
        (blobs(5), 0, "k is 0"),
        (np.array([[0.0], [np.nan], [1.0]], np.float32), 2, "rows 1"),
        (np.array([[0.0], [1.0], [np.inf]], np.float32), 2, "rows 2"),
    ],
)
def test_bad_input_is_explained(points, k, message):
    with pytest.raises(UserError, match=message):
        ours(points, k)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(6)), st.integers(0, 10**6))
def test_matching_undoes_a_renaming(renaming, seed):
    classes = np.random.default_rng(seed).integers(0, 6, 200).astype(np.int32)
    clusters = np.asarray(renaming, np.int32)[classes]
    matching = match_clusters(clusters, classes, np.ones((6, 6), bool))
    np.testing.assert_array_equal(matching[clusters], classes)


def test_matching_stays_inside_super_classes():
    classes = np.repeat(np.arange(4, dtype=np.int32), 10)
    clusters = np.repeat(np.array([2, 3, 0, 1], np.int32), 10)
    allowed = np.kron(np.eye(2), np.ones((2, 2))).astype(bool)
    matching = match_clusters(clusters, classes, allowed)
    assert set(matching[:2]) == {0, 1}
    assert set(matching[2:]) == {2, 3}
