# SPDX-License-Identifier: Apache-2.0
"""ncjax.KMeans against scikit-learn's own checks and its KMeans."""

import warnings

import numpy as np
import pytest
import sklearn.cluster
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import ncjax

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


def test_given_starts_and_functions():
    points = make_blobs(300, 3, centers=4, random_state=0)[0]
    given = ncjax.KMeans(4, init=points[:4]).fit(points)
    theirs = sklearn.cluster.KMeans(4, init=points[:4], n_init=1).fit(points)
    np.testing.assert_allclose(given.cluster_centers_, theirs.cluster_centers_, atol=1e-3)
    called = ncjax.KMeans(4, init=lambda points, k, random_state: points[:k], n_init=2).fit(points)
    np.testing.assert_allclose(called.cluster_centers_, given.cluster_centers_, atol=1e-3)
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
