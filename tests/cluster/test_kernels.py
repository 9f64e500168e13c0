# SPDX-License-Identifier: Apache-2.0
"""k-means with its kernels, interpreted, does what it does without them; and where they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from ncjax.cluster import kernels, kmeans, lloyd
from ncjax.cluster.points import Points, centre_if_small, make_points
from ncjax.cluster.search import HALF_SHARE, run_lloyd
from ncjax.ops import pallas
from tests.kinds import make

N, D, K = 960, 6, 24


@pytest.fixture
def interpreted(monkeypatch):
    """Also for few points and clusters; a fresh cache, for what is compiled does not show which way it went."""
    pytest.importorskip("jax.experimental.pallas.triton")
    for name, value in (("LEAST_CENTROIDS", K), ("LEAST_POINTS", 100)):
        monkeypatch.setattr(kernels, name, value)
    jax.clear_caches()
    yield monkeypatch.setattr(pallas, "INTERPRET", True)
    jax.clear_caches()


def blobs(spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(K, D))
    return (centres[np.arange(N) % K] + spread * rng.normal(size=(N, D))).astype(np.float32)


def steps_of_sklearn(points, start, steps):
    return KMeans(K, init=start, n_init=1, max_iter=steps, tol=0, algorithm="lloyd").fit(points)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_steps_from_given_centroids_are_scikit_learns(interpreted, steps):
    points = blobs()
    theirs = steps_of_sklearn(points, points[:K], steps)
    found = kmeans(jax.random.key(0), points, K, init=points[None, :K], max_iterations=steps, tol=0.0)
    assert int(found.iterations) == steps
    np.testing.assert_allclose(found.centroids, theirs.cluster_centers_, atol=1e-4)


@pytest.mark.parametrize("kind", [pytest.param("blobs", marks=pytest.mark.slow), "Student t"])
def test_labels_and_inertia_are_of_the_nearest_centroid(interpreted, kind):
    points, weights = make(kind, N, D, K, masked=True)
    found = kmeans(jax.random.key(1), points, K, weights=jnp.asarray(weights), init=points[None, weights > 0][:, :K])
    centroids = np.asarray(found.centroids, np.float64)
    distances = ((points[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    own = distances[np.arange(N), np.asarray(found.labels)]
    np.testing.assert_allclose(own[weights > 0], distances.min(axis=1)[weights > 0], rtol=1e-4, atol=1e-5)
    assert float(found.inertia) == pytest.approx(weights @ distances.min(axis=1), rel=1e-4)
    assert bool(found.converged)


@pytest.mark.slow
def test_the_search_is_as_good_as_scikit_learns(interpreted):
    points = blobs(spread=0.6)
    theirs = KMeans(K, n_init=4, random_state=0).fit(points)
    assert float(kmeans(jax.random.key(0), points, K, restarts=4).inertia) <= 1.01 * theirs.inertia_


def in_memory(points):
    found = make_points(jnp.asarray(points), jnp.ones(len(points)), None)
    return centre_if_small(found)


def test_products_of_float16_stop_where_they_do_not_tell_clusters_apart(interpreted):
    points = in_memory(blobs(spread=1e-3))
    start = lloyd.make_restarts(points.rows[None, :K])
    floor = HALF_SHARE * (points.rows**2).sum()
    found = run_lloyd(points, start, jnp.float32(0), 300, None, floor)
    np.testing.assert_array_equal(found.centroids, start.centroids)  # the step that would have moved them is not taken
    assert bool(found.converged[0])
    assert int(found.iterations[0]) == 0


@pytest.mark.slow
def test_tight_clusters_are_found_by_full_precision(interpreted):
    points = blobs(spread=1e-3)
    found = kmeans(jax.random.key(0), points, K, init=points[None, :K])
    assert len(np.unique(np.asarray(found.labels).reshape(-1, K), axis=0)) == 1  # each blob is a cluster
    assert float(found.inertia) == pytest.approx(N * D * 1e-6, rel=0.2)


def points_of(n, d, dtype=jnp.float32, centre=None):
    return Points(jnp.zeros((n, d), dtype), jnp.ones(n), centre, jnp.ones(()), jnp.int32(n))


def test_where_kernels_are_used(monkeypatch):
    assert not kernels.has_kernel(points_of(10_000, 64), 100)  # on a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(kernels, "_are_right", lambda width: width <= 128)
    assert kernels.has_kernel(points_of(10_000, 64), 100)
    assert not kernels.has_kernel(points_of(10_000, 200), 100)  # kernels of this width fail
    assert not kernels.has_kernel(points_of(10_000, 300), 100)
    assert not kernels.has_kernel(points_of(10_000, 64), 10)
    assert not kernels.has_kernel(points_of(1_000, 64), 100)
    assert not kernels.has_kernel(points_of(10_000, 64, jnp.float16), 100)
    assert not kernels.has_kernel(points_of(10_000, 64, centre=jnp.zeros(64)), 100)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not kernels.has_kernel(points_of(10_000, 64), 100)


def test_kernels_that_do_not_compile_or_are_wrong_are_left_with_a_warning(monkeypatch):
    with pytest.warns(UserWarning, match="k-means goes on without its kernels, which fail here"):
        assert not kernels._are_right.__wrapped__(32)  # Triton has no CPU
    monkeypatch.setattr(pallas, "INTERPRET", True)
    jax.clear_caches()
    assert kernels._are_right.__wrapped__(32)
    right = kernels.nearest_centroids
    monkeypatch.setattr(kernels, "nearest_centroids", lambda x, c: right(x, c)._replace(first=right(x, c).second))
    with pytest.warns(UserWarning, match="fail here"):
        assert not kernels._are_right.__wrapped__(32)
