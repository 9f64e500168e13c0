# SPDX-License-Identifier: Apache-2.0
"""The number of clusters, and the silhouette against scikit-learn's."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score

from ncjax.cluster import choose_num_clusters, num_clusters
from ncjax.cluster.num_clusters import silhouette
from ncjax.errors import UserError


def test_silhouette_is_scikit_learns():
    points, labels = make_blobs(300, 4, centers=3, cluster_std=3.0, random_state=1)
    labels[0] = 3  # alone in its cluster
    points = points.astype(np.float32)
    assert silhouette(points, labels, 4) == pytest.approx(silhouette_score(points.astype(np.float64), labels), abs=1e-9)


@pytest.mark.slow
def test_two_clusters_are_two_for_all_methods():
    centres = 10 * np.eye(2, 6)
    points = make_blobs(600, centers=centres, cluster_std=0.5, random_state=0)[0].astype(np.float32)
    found = choose_num_clusters(jax.random.key(0), jnp.asarray(points), 3, restarts=3, references=2)
    assert (found.silhouette, found.gap, found.eigen_gap) == (2, 2, 2)
    assert found.silhouettes.shape == found.gaps.shape == found.variances.shape == (3,)


def two_groups(dead, unit=1.0, offset=0.0):
    rng = np.random.default_rng(0)
    points = 0.3 * rng.normal(size=(200, 2)) + np.repeat([[0, 0], [10, 0]], 100, axis=0)
    return unit * (np.hstack([points, np.zeros((200, dead))]) + offset)


@pytest.mark.parametrize(
    ("points", "truth"),
    [
        pytest.param(two_groups(0), 2, marks=pytest.mark.slow),
        pytest.param(two_groups(6), 2, marks=pytest.mark.slow),
        (two_groups(6, 1e-20), 2),
        pytest.param(two_groups(0, 1e15), 2, marks=pytest.mark.slow),
        pytest.param(two_groups(0, 1.0, 1e7), 2, marks=pytest.mark.slow),
        pytest.param(np.repeat(np.random.default_rng(0).normal(size=(3, 4)), 30, axis=0), 3, marks=pytest.mark.slow),
    ],
    ids=["two features", "dead ones beside", "small", "large", "far from 0", "three points, repeated"],
)
def test_axes_that_are_rounding_are_no_evidence(points, truth):
    found = choose_num_clusters(jax.random.key(0), points, truth + 1, restarts=2, references=1)
    assert (found.eigen_gap, found.silhouette) == (truth, truth)
    variances = np.sort(np.linalg.eigvalsh(np.cov(points.T, bias=True)))[::-1][: truth + 1]
    np.testing.assert_allclose(found.variances[: len(variances)], variances, atol=1e-9 * variances[0])


@pytest.mark.parametrize("apart", [1e-6, 1e-3, 1.0, 1e3])
def test_silhouette_of_points_that_nearly_coincide(apart):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    points = 1.0 + apart * (3 * rng.normal(size=(3, 5))[labels] + rng.normal(size=(120, 5)))
    assert silhouette(points, labels, 3) == pytest.approx(silhouette_score((points - 1.0) / apart, labels), abs=1e-7)


@pytest.mark.parametrize("max_clusters", [1, 4])
def test_too_few_and_too_many_clusters_are_refused(max_clusters):
    with pytest.raises(UserError, match=f"max_clusters is {max_clusters}, but must be from 2 to .* points, 3"):
        choose_num_clusters(jax.random.key(0), jnp.eye(3), max_clusters)


def test_points_that_are_not_finite_are_named():
    points = jnp.ones((20, 2)).at[7, 1].set(jnp.nan)
    with pytest.raises(UserError, match=r"1 points are not finite \(rows 7\)"):
        choose_num_clusters(jax.random.key(0), points, 3)


def test_example_of_the_docstring():
    result = doctest.testmod(num_clusters)
    assert result.attempted
    assert not result.failed
