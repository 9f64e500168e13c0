# SPDX-License-Identifier: Apache-2.0
"""ncjax.KMeans against scikit-learn's own checks and its KMeans."""

import doctest
import warnings

import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import sklearn.cluster
import torch
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import ncjax
from ncjax.cluster import estimator as estimator_module

CORE = {
    "check_clustering",
    "check_estimators_nan_inf",
    "check_fit2d_predict1d",
    "check_n_features_in_after_fitting",
    "check_parameters_default_constructible",
    "check_transformer_preserve_dtypes",
}


def statuses(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    return {result["check_name"]: result["status"] for result in results}


@pytest.mark.slow
def test_every_check_that_scikit_learns_kmeans_passes():
    ours = statuses(ncjax.KMeans())
    theirs = {name for name, status in statuses(sklearn.cluster.KMeans()).items() if status == "passed"}
    assert theirs
    assert {name for name in theirs if ours.get(name) != "passed"} == set()


@pytest.mark.parametrize("name", sorted(CORE))
def test_core_checks(name):
    checks = {check.func.__name__: (one, check) for one, check in estimator_checks_generator(ncjax.KMeans())}
    estimator, check = checks[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_float64_far_from_0_and_tiny():
    points, labels = make_blobs(300, 3, centers=4, cluster_std=0.1, random_state=0)
    points = 1e9 + 1e-6 * np.round(points, 3) * 2**10
    ours = ncjax.KMeans(4, n_init=10, random_state=0).fit(points)
    theirs = sklearn.cluster.KMeans(4, n_init=10, random_state=0).fit(points - 1e9)
    assert adjusted_rand_score(labels, ours.labels_) == 1.0
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-3)
    np.testing.assert_array_equal(ours.predict(points), ours.labels_)
    assert ours.score(points) == pytest.approx(-ours.inertia_, rel=1e-4)
    assert ours.cluster_centers_.dtype == np.float64


TYPES = ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"]


def typed(points, dtype):
    return np.asarray(points, np.float32).astype(jnp.bfloat16) if dtype == "bfloat16" else points.astype(dtype)


@pytest.fixture(scope="module")
def whole():
    """Points that every type holds exactly, and scikit-learn's clusters of them."""
    points = np.round(make_blobs(256, 3, centers=4, cluster_std=5.0, center_box=(20, 110), random_state=0)[0])
    points = np.clip(points, 0, 127)
    return points, sklearn.cluster.KMeans(4, n_init=10, random_state=0).fit(points)


@pytest.mark.parametrize("fitted", TYPES)
def test_fit_in_one_type_and_use_in_every_other(whole, fitted):
    points, theirs = whole
    ours = ncjax.KMeans(4, n_init=10, random_state=0).fit(typed(points, fitted))
    assert adjusted_rand_score(theirs.labels_, ours.labels_) == 1.0
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-4)
    oracle = pairwise_distances(points, np.asarray(ours.cluster_centers_, np.float64))
    for used in TYPES:
        given = typed(points, used)
        np.testing.assert_array_equal(ours.predict(given), oracle.argmin(axis=1))
        np.testing.assert_array_equal(ours.labels_, oracle.argmin(axis=1))
        np.testing.assert_allclose(ours.transform(given), oracle, rtol=1e-5, atol=1e-4)
        assert ours.score(given) == pytest.approx(-(oracle.min(axis=1) ** 2).sum(), rel=1e-5)


CONTAINERS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda points: np.repeat(np.repeat(points, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda points: points[::-1].copy()[::-1],
    "read-only": lambda points: np.frombuffer(points.tobytes(), points.dtype).reshape(points.shape),
    "list": lambda points: points.tolist(),
    "data frame": pandas.DataFrame,
    "JAX": jnp.asarray,
    "tensor": torch.as_tensor,
    "tensor of bfloat16": lambda points: torch.as_tensor(points).to(torch.bfloat16),
    "big endian": lambda points: points.astype(">f8"),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_holds_the_same_points(whole, container):
    points, theirs = whole
    given = CONTAINERS[container](points.astype(np.float32))
    ours = ncjax.KMeans(4, n_init=10, random_state=0).fit(given)
    assert adjusted_rand_score(theirs.labels_, ours.labels_) == 1.0
    np.testing.assert_array_equal(ours.predict(given), ours.labels_)
    assert ours.transform(given).argmin(axis=1).tolist() == ours.labels_.tolist()
    assert -ours.score(given) == pytest.approx(ours.inertia_, rel=1e-6)


def test_centroids_that_are_set_by_hand_are_those_that_predict():
    points = np.random.default_rng(0).normal(size=(150, 2))
    model = ncjax.KMeans(3, random_state=0).fit(points)
    for centres in (model.cluster_centers_[::-1], 5 + model.cluster_centers_, np.array([[0, 0], [1, 1], [9, 9]])):
        model.cluster_centers_ = centres
        distances = pairwise_distances(points, centres)
        np.testing.assert_array_equal(model.predict(points), distances.argmin(axis=1))
        np.testing.assert_allclose(model.transform(points), distances, atol=1e-6)
        assert model.score(points) == pytest.approx(-(distances.min(axis=1) ** 2).sum())


def towns(far):
    """Three towns of three sites 60 apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, 900)
    town, site = far * np.array([[0.4, 4.0], [1.2, 4.3], [0.6, 3.1]]), 60.0 * np.array([[0, 0], [1, 0], [0, 1]])
    return town[labels // 3] + site[labels % 3] + 4 * rng.normal(size=(900, 2)), labels


@pytest.mark.parametrize("far", [1e4, 1e6, 1e8, 1e9])
def test_clusters_of_several_scales_are_told_apart(far):
    points, labels = towns(far)
    ours = ncjax.KMeans(9, n_init=10, random_state=0).fit(points)
    assert adjusted_rand_score(labels, ours.labels_) > 0.99
    inside = sum(points[labels == j].var(axis=0).sum() * (labels == j).sum() for j in range(9))
    assert ours.inertia_ == pytest.approx(inside, rel=0.01)


@pytest.mark.parametrize("sentinel", [1e6, 1e9])  # at 1e12 scikit-learn loses them too
def test_a_far_row_alone_hides_nothing(sentinel):
    points, labels = towns(1e3)
    points, labels = points[labels < 3], labels[labels < 3]
    ours = ncjax.KMeans(4, n_init=10, random_state=0).fit(np.vstack([points, [[sentinel, sentinel]]]))
    assert adjusted_rand_score(labels, ours.labels_[:-1]) > 0.99


def test_initial_centroids_and_functions():
    points = make_blobs(300, 3, centers=4, random_state=0)[0]
    initialized = ncjax.KMeans(4, init=points[:4]).fit(points)
    theirs = sklearn.cluster.KMeans(4, init=points[:4], n_init=1).fit(points)
    np.testing.assert_allclose(initialized.cluster_centers_, theirs.cluster_centers_, atol=1e-3)
    called = ncjax.KMeans(4, init=lambda points, k, random_state: points[:k], n_init=2).fit(points)
    np.testing.assert_allclose(called.cluster_centers_, initialized.cluster_centers_, atol=1e-3)
    with pytest.raises(ValueError, match="init gives"):
        ncjax.KMeans(4, init=points[:3]).fit(points)
    with pytest.raises(ValueError, match="init is 'best'"):
        ncjax.KMeans(4, init="best").fit(points)


def test_points_of_weight_0_get_labels_and_duplicates_a_warning():
    points = np.repeat([[0.0], [1.0], [5.0]], 10, axis=0)
    weights = np.tile([1.0, 0.0], 15)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(3\)"):
        fitted = ncjax.KMeans(4, n_init=3, random_state=0).fit(points, sample_weight=weights)
    assert (fitted.labels_[::2] == fitted.labels_[1::2]).all()


def test_a_number_is_the_weight_of_every_point():
    points = make_blobs(60, 2, centers=3, random_state=0)[0]
    one, five = (ncjax.KMeans(3, random_state=0).fit(points, sample_weight=weight) for weight in (None, 5.0))
    assert five.inertia_ == pytest.approx(5 * one.inertia_, rel=1e-5)
    np.testing.assert_array_equal(five.labels_, one.labels_)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((10, 1)), r"must be 1D array or scalar, got 2D array\. .* 1D array of length 10\."),
        (np.ones(9), r"sample_weight\.shape == \(9,\), expected \(10,\)!"),
        (np.zeros(10), "at least one non-zero number"),
        (-np.ones(10), "Negative values in data passed to `sample_weight`"),
        (np.full(10, np.nan), "Input sample_weight contains NaN"),
    ],
    ids=["matrix", "short", "zero", "negative", "nan"],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        ncjax.KMeans(2).fit(np.eye(10), sample_weight=weights)


def test_example_of_the_docstring():
    result = doctest.testmod(estimator_module)
    assert result.attempted
    assert not result.failed
