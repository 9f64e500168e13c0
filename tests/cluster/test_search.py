# SPDX-License-Identifier: Apache-2.0
"""The promise of k-means: on any kind of points, over seeds, the inertia of scikit-learn's at the same restarts."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
from jax.sharding import Mesh

from ncjax import KMeans
from ncjax.cluster import kmeans, search, sharded_kmeans, stream_kmeans, streamed
from tests.kinds import KINDS, MASKED, make

CASES = [(kind, False) for kind in KINDS] + [(kind, True) for kind in MASKED]
QUICK = [case for case in CASES if case[0] not in ("rare", "fewer distinct than clusters")]  # "rare" is of three points
LIKE_OTHERS = [("blobs", False), ("no clusters", False), ("Student t", True), ("overlapping", True)]
IDS = [kind + (", most of weight 0" if masked else "") for kind, masked in CASES]


def sklearn_inertias(points, weights, k, restarts, seeds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than clusters
        return [
            sklearn.cluster.KMeans(k, n_init=restarts, random_state=seed).fit(points, sample_weight=weights).inertia_
            for seed in range(seeds)
        ]


def assert_kept(ours, theirs, points):
    """The median within 0.1 %, the worst within 0.5 % of the worst."""
    rounding = 1e-9 * float((points.astype(np.float64) ** 2).sum())
    assert np.median(ours) <= 1.001 * np.median(theirs) + rounding
    assert np.max(ours) <= 1.005 * np.max(theirs) + rounding


@pytest.fixture
def sampled(monkeypatch):
    """The search sees a third of 3,001 points; a shape that nothing else has, so it is compiled with these numbers."""
    monkeypatch.setattr(search, "ROWS", 1000)
    monkeypatch.setattr(search, "ROWS_PER_CLUSTER", 150)
    monkeypatch.setattr(search, "MIN_ROWS_REDUCTION", 2)
    return 3001, 8, 6


@pytest.mark.parametrize(
    ("kind", "masked"), [pytest.param(*case, marks=pytest.mark.slow) if case in LIKE_OTHERS else case for case in QUICK]
)
def test_a_search_on_a_sample_is_as_good_as_scikit_learns_on_all_points(sampled, kind, masked):
    n, d, k = sampled
    points, weights = make(kind, n, d, k, masked=masked)
    keys = jax.random.split(jax.random.key(0), 8)
    ours = [float(kmeans(key, jnp.asarray(points), k, weights=jnp.asarray(weights)).inertia) for key in keys]
    assert_kept(ours, sklearn_inertias(points, weights, k, 10, 24), points)  # the median of five is a matter of luck


def estimator(points, weights, k, seed, restarts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KMeans(k, n_init=restarts, random_state=seed).fit(points, sample_weight=weights).inertia_


def over_devices(points, weights, k, seed, restarts):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    key = jax.random.key(seed)
    return float(sharded_kmeans(key, points, k, mesh=mesh, weights=weights, restarts=restarts).inertia)


DOORS = {"estimator": estimator, "sharded": over_devices}
FULL = [(20_000, 16, 10), (20_000, 4, 3), (12_000, 200, 10), (4_000, 16, 12)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("restarts", [1, 10])
@pytest.mark.parametrize("shape", FULL, ids=str)
@pytest.mark.parametrize(("kind", "masked"), CASES, ids=IDS)
def test_every_door_keeps_the_promise_at_full_size(kind, masked, shape, restarts):
    n, d, k = shape
    points, weights = make(kind, n, d, k, masked=masked)
    theirs = sklearn_inertias(points, weights, k, restarts, 8)
    for door in DOORS.values():
        assert_kept([door(points, weights, k, seed, restarts) for seed in range(8)], theirs, points)


@pytest.mark.parametrize("kind", ["in turns", "rare and far"])
def test_a_stream_keeps_the_promise(kind, monkeypatch):
    monkeypatch.setattr(streamed, "BLOCK_BYTES", 2**15)
    monkeypatch.setattr(streamed, "SAMPLE_ROWS_PER_CLUSTER", 50)
    points, weights = make(kind, 3001, 8, 6)
    keys = jax.random.split(jax.random.key(0), 3)
    ours = [float(stream_kmeans(key, points, 6, sample_rows=1000).inertia) for key in keys]
    assert_kept(ours, sklearn_inertias(points, weights, 6, 10, 3), points)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_keeps_the_promise_at_full_size(kind):
    points, weights = make(kind, 200_000, 8, 10)
    ours = [float(stream_kmeans(jax.random.key(seed), points, 10).inertia) for seed in range(8)]
    assert_kept(ours, sklearn_inertias(points, weights, 10, 10, 8), points)
