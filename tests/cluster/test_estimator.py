# SPDX-License-Identifier: Apache-2.0
"""ncjax.KMeans against scikit-learn's own checks and its KMeans."""

import doctest
import warnings

import numpy as np
import pytest
import sklearn.cluster
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
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
