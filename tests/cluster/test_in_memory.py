# SPDX-License-Identifier: Apache-2.0
"""k-means against scikit-learn's, and what holds for any points."""

import doctest
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score

from ncjax.cluster import in_memory, kmeans
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
    points = np.round(blobs(spread=1.0) * 8) / 8  # so that float32 holds them next to 2^20
    shifted = points + np.float32(2**20)
    assert adjusted_rand_score(np.asarray(ours(points, 4).labels), np.asarray(ours(shifted, 4).labels)) == 1.0
    assert float(ours(shifted, 4).inertia) == pytest.approx(float(ours(points, 4).inertia), rel=1e-6)


ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
ORDER = np.random.default_rng(2).permutation(600)
SAME = {  # transformations, and by how much they change the inertia
    "rotated": (lambda x: x @ ROTATION, 1.0),
    "reordered": (lambda x: x[ORDER], 1.0),
    "features reordered": (lambda x: x[:, ::-1], 1.0),
    "dead features": (lambda x: np.hstack([x, np.full((len(x), 3), 7.0)]), 1.0),
    "shifted": (lambda x: x + 1e8 * np.arange(5), 1.0),
} | {f"in units of {unit:g}": (lambda x, unit=unit: x * unit, unit**2) for unit in (1e-20, 1e-9, 1e9, 1e20)}


@pytest.mark.parametrize("spread", [1e-4, 0.5])
@pytest.mark.parametrize("name", SAME)
def test_what_changes_no_cluster(name, spread):
    points = make_blobs(600, 5, centers=4, cluster_std=spread, random_state=0)[0]
    change, factor = SAME[name]
    changed = change(points)
    found, wanted = kmeans(KEY, changed, 4), KMeans(4, n_init=10, random_state=0).fit(points)
    same = ORDER if name == "reordered" else slice(None)
    assert adjusted_rand_score(wanted.labels_[same], found.labels) == 1.0
    assert float(found.inertia) == pytest.approx(factor * wanted.inertia_, rel=1e-2 if name == "shifted" else 1e-5)
    exact = np.stack([changed[np.asarray(found.labels) == j].mean(axis=0) for j in range(4)])
    np.testing.assert_allclose(found.centroids, exact, rtol=1e-12, atol=1e-5 * np.sqrt(factor))


@pytest.mark.parametrize("unit", [1e-18, 1e-9, 1e9, 1e17])
def test_single_precision_in_any_unit(unit):
    points = blobs(spread=0.5)
    found, wanted = ours(points * np.float32(unit), 4), ours(points, 4)
    assert adjusted_rand_score(np.asarray(wanted.labels), np.asarray(found.labels)) == 1.0
    assert float(found.inertia) == pytest.approx(unit**2 * float(wanted.inertia), rel=1e-4)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_points_of_weight_0_are_absent(seed):
    rng = np.random.default_rng(seed)
    points, rubbish = blobs(60, 3, 3, seed=seed % 1000), rng.normal(size=(20, 3)).astype(np.float32) * 1e3
    weights = np.concatenate([np.ones(60), np.zeros(20)]).astype(np.float32)
    whole = np.concatenate([points, rubbish])
    each = [kmeans(jax.random.key(i), whole, 3, weights=jnp.asarray(weights)) for i in range(3)]
    padded = min(each, key=lambda found: float(found.inertia))  # one seed alone may end 1 % above the optimum
    best = KMeans(3, n_init=10, random_state=0).fit(points).inertia_
    assert float(padded.inertia) <= 1.001 * best
    assert float(padded.inertia) == pytest.approx(inertia_of(points, padded.centroids), rel=1e-3)


def test_weights_count_points():
    points, counts = blobs(80, 2, 3), np.random.default_rng(0).integers(1, 5, 80)
    weighted = ours(points, 3, weights=jnp.asarray(counts, jnp.float32))
    repeated = ours(np.repeat(points, counts, axis=0), 3)
    assert float(weighted.inertia) == pytest.approx(float(repeated.inertia), rel=1e-3)


@pytest.mark.parametrize("distinct", [1, 3])
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


def wide(n=24000, d=64, k=3, rank=4, seed=0):
    """Collapsed features: clusters and spread in few directions, noise in all; enough of both for a search."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    labels = rng.integers(0, k, n)
    return (5 * rng.normal(size=(k, d))[labels] + spread + 0.1 * rng.normal(size=(n, d))).astype(np.float32) + 3


@pytest.mark.parametrize("exhaustive", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_search_on_few_axes_and_rows_ends_at_a_fixed_point_of_all(exhaustive):
    points = wide()
    found = ours(points, 4, exhaustive=exhaustive, tol=0.0)
    best = KMeans(4, n_init=10, random_state=0).fit(points)
    assert float(found.inertia) <= 1.001 * best.inertia_
    assert float(found.inertia) == pytest.approx(inertia_of(points, found.centroids), rel=1e-5)
    assert float(found.inertia) == float(found.restart_inertia.min())
    means = np.stack([points[np.asarray(found.labels) == j].mean(axis=0, dtype=np.float64) for j in range(4)])
    np.testing.assert_allclose(found.centroids, means, atol=1e-4)
    assert bool(found.converged)


def test_initial_centroids_take_scikit_learns_steps():
    points = blobs(spread=4.0)
    for steps in (1, 3):
        theirs = KMeans(5, init=points[:5], n_init=1, max_iter=steps, tol=0, algorithm="lloyd")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs.fit(points)
        found = ours(points, 5, init=jnp.asarray(points[None, :5]), max_iterations=steps, tol=0.0)
        np.testing.assert_allclose(found.centroids, theirs.cluster_centers_, atol=1e-4)
        assert int(found.iterations) == steps
        assert not found.converged


def test_an_empty_cluster_moves_to_the_farthest_point():
    points = np.array([[0.0], [1.0], [2.0], [9.0], [30.0]], np.float32)
    far = np.array([[[1.0], [500.0], [600.0]]], np.float32)
    found = ours(points, 3, init=jnp.asarray(far), max_iterations=1)
    np.testing.assert_allclose(np.sort(np.asarray(found.centroids)[:, 0]), [8.4, 9.0, 30.0], atol=1e-5)


def test_random_initial_centroids_are_different_points_of_positive_weight():
    points = np.arange(40, dtype=np.float32)[:, None]
    weights = np.where(np.arange(40) % 4 == 0, 1.0, 0.0).astype(np.float32)
    found = ours(points, 10, weights=jnp.asarray(weights), init="random", max_iterations=1)
    assert set(np.asarray(found.centroids)[:, 0].round(3)) == set(range(0, 40, 4))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_no_cluster_is_lost_and_labels_are_nearest(seed, distinct):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 4, (60, 2)).astype(np.float32)
    points[: 10 * distinct] = points[0]
    found = ours(points, 5, weights=jnp.asarray(rng.integers(0, 3, 60), jnp.float32).at[-5:].set(1))
    assert np.isfinite(np.asarray(found.centroids)).all()
    distances = ((points[:, None] - np.asarray(found.centroids, np.float64)[None]) ** 2).sum(-1)
    own = np.take_along_axis(distances, np.asarray(found.labels)[:, None], axis=1)[:, 0]
    present = np.arange(60) >= 55
    np.testing.assert_allclose(own[present], distances.min(axis=1)[present], atol=1e-5)


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


def test_example_of_the_docstring():
    result = doctest.testmod(in_memory)
    assert result.attempted
    assert not result.failed
