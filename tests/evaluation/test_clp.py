# SPDX-License-Identifier: Apache-2.0
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ncjax.evaluation.clp import cluster_and_linear_probe
from ncjax.evaluation.linear_probe import fit_probe, probe_predict
from ncjax.evaluation.old_results import FeatureArrays, evaluate_features
from ncjax.errors import UserError
from tests.collapse import oracle

KEY = jax.random.key(0)
MOD5 = (0, 1, 2, 3, 4) * 2
VIEWS = ("raw", "normalised", "residual_pca")


# ------------------------------------------------------------------ probe


def digits():
    data = load_digits()
    points, labels = data.data.astype(np.float32), data.target.astype(np.int32)
    return points[::2], labels[::2], points[1::2], labels[1::2]


def collapsed_digits():
    """The digits with ten huge class directions: a badly conditioned problem."""
    train, labels, test, test_labels = digits()
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5, 64)).astype(np.float32) * 300
    return train + means[labels % 5] + 1e3, labels, test + means[test_labels % 5] + 1e3, test_labels


@pytest.mark.parametrize("data", [digits, collapsed_digits])
@pytest.mark.parametrize("l2", [1e-2, 1e-4])
def test_probe_is_scikit_learns(data, l2):
    train, labels, test, test_labels = data()
    ours = fit_probe(jnp.asarray(train), jnp.asarray(labels), 10, l2=l2)
    regression = LogisticRegression(C=1 / (l2 * len(train)), solver="newton-cg", tol=1e-8)
    theirs = make_pipeline(StandardScaler(), regression)
    theirs.fit(train.astype(np.float64), labels)
    accuracy = (np.asarray(probe_predict(ours, jnp.asarray(test))) == test_labels).mean()
    assert abs(accuracy - theirs.score(test, test_labels)) <= 0.002
    assert bool(ours.converged)
    z = StandardScaler().fit(train.astype(np.float64))
    weights = theirs[-1].coef_.T
    logits = z.transform(train) @ weights + theirs[-1].intercept_
    loss = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(len(train)), labels].mean()
    assert float(ours.loss) == pytest.approx(loss + l2 / 2 * (weights**2).sum(), rel=2e-3)


def test_probes_at_once_are_those_one_by_one():
    train, labels, test, _ = digits()
    labellings = np.stack([labels, labels % 5, (labels * 3 + np.arange(len(labels)) % 2) % 10]).astype(np.int32)
    together = fit_probe(jnp.asarray(train), jnp.asarray(labellings), 10)
    assert together.converged.all()
    for i, own in enumerate(labellings):
        alone = fit_probe(jnp.asarray(train), jnp.asarray(own), 10)
        assert float(together.loss[i]) == pytest.approx(float(alone.loss), rel=1e-4)
        found = probe_predict(together, jnp.asarray(test))[i] == probe_predict(alone, jnp.asarray(test))
        assert found.mean() > 0.99


def test_probe_survives_constant_features_and_one_missing_class():
    train, labels, _, _ = digits()
    train[:, 3] = 7
    probe = fit_probe(jnp.asarray(train), jnp.asarray(labels), 11)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in probe)
    assert 10 not in np.asarray(probe_predict(probe, jnp.asarray(train)))


# ------------------------------------------------------------------ CLP


def features(separation, noise=0.3, seed=0, unequal=False):
    """Ten classes whose super-classes (mod 5) are far apart and whose pairs are `separation` apart."""
    rng = np.random.default_rng(seed)
    coarse, fine = 8 * rng.normal(size=(5, 12)), rng.normal(size=(10, 12))
    fine *= separation / np.linalg.norm(fine[:5] - fine[5:], axis=1).mean()

    def split(n):
        labels = rng.integers(0, 10, n).astype(np.int32)
        if unequal:
            labels = np.where(rng.random(n) < 0.5, labels % 2, labels).astype(np.int32)
        points = coarse[labels % 5] + fine[labels] + noise * rng.normal(size=(n, 12))
        return points.astype(np.float32), labels

    (train, train_fine), (test, test_fine) = split(1500), split(700)
    return FeatureArrays(train=train, train_fine=train_fine, test=test, test_fine=test_fine)


@pytest.mark.parametrize("variant", ["raw", "normalised", "residual_pca", "tsne"])
@pytest.mark.filterwarnings("ignore")
def test_separated_classes_come_back(variant):
    result = cluster_and_linear_probe(KEY, features(6.0), MOD5, variant)
    assert result.test_accuracy > 0.99
    assert result.cluster_accuracy_train > 0.99
    assert result.ari > 0.98
    assert result.nmi > 0.98
    assert result.test_accuracy_oracle >= result.test_accuracy
    assert (result.cluster_accuracy_test is None) == (variant == "tsne")


@pytest.mark.parametrize("variant", ["raw", "normalised", "residual_pca"])
def test_collapsed_classes_do_not_come_back(variant):
    result = cluster_and_linear_probe(KEY, features(0.0), MOD5, variant)
    assert result.test_accuracy < 0.65  # a coin inside the right super-class
    assert result.cluster_accuracy_train < 0.65
    assert result.ari < 0.6


def test_super_classes_of_different_sizes_and_unequal_classes():
    super_class = (0, 0, 0, 0, 1, 1, 2, 1, 3, 3)
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10, 20)) * 5

    def split(n):
        labels = rng.choice(10, n, p=[0.3, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]).astype(np.int32)
        return (means[labels] + 0.3 * rng.normal(size=(n, 20))).astype(np.float32), labels

    (train, train_fine), (test, test_fine) = split(1500), split(400)
    arrays = FeatureArrays(train=train, train_fine=train_fine, test=test, test_fine=test_fine)
    assert cluster_and_linear_probe(KEY, arrays, super_class, "raw").test_accuracy > 0.99


def test_matching_is_that_of_the_training_set():
    arrays = features(6.0)
    swapped = (arrays.test_fine + 5) % 10  # on the test set the two classes of each pair change names
    arrays = FeatureArrays(train=arrays.train, train_fine=arrays.train_fine, test=arrays.test, test_fine=swapped)
    result = cluster_and_linear_probe(KEY, arrays, MOD5, "raw")
    assert result.test_accuracy < 0.01
    assert result.test_accuracy_oracle > 0.99


def test_super_class_without_enough_examples_is_named():
    arrays = features(6.0)
    few = np.flatnonzero(arrays.train_fine % 5 != 3)
    few = np.append(few, np.flatnonzero(arrays.train_fine == 3)[:1])
    arrays = FeatureArrays(
        train=arrays.train[few], train_fine=arrays.train_fine[few], test=arrays.test, test_fine=arrays.test_fine
    )
    with pytest.raises(UserError, match="super-class 3 has 1 training examples"):
        cluster_and_linear_probe(KEY, arrays, MOD5, "raw")


def test_evaluation_is_json_and_its_parts_agree():
    arrays = features(2.0, noise=0.5)
    result = evaluate_features(KEY, arrays, MOD5, ("raw", "normalised"))
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(content["clp"]) == {"raw", "normalised"}
    assert content["distance_same_class"] < content["distance_merged_classes"] < content["distance_other_classes"]
    assert content["clp"]["raw"]["test_accuracy"] <= content["probe_test_accuracy"] + 0.02
    assert content["nc1_coarse_train"] > 0
    assert content["nc1_fine_train"] == pytest.approx(oracle.level(arrays.train, arrays.train_fine)["nc1"], rel=1e-2)
    np.testing.assert_allclose(
        content["class_distances"], oracle.distance_matrix(arrays.train, arrays.train_fine), 1e-3
    )
    assert content["distance_merged_classes"] == content["collapse"]["train"]["within"]["distance_merged_classes"]
    assert content["left_out"] == ["nc3 and nc4: there are no classifier weights"]


def test_features_of_a_dead_network_are_measured_too():
    arrays = features(2.0)
    dead = FeatureArrays(
        train=np.zeros_like(arrays.train),
        train_fine=arrays.train_fine,
        test=np.zeros_like(arrays.test),
        test_fine=arrays.test_fine,
    )
    content = json.loads(json.dumps(evaluate_features(KEY, dead, MOD5, VIEWS).to_json(), allow_nan=False))
    assert content["probe_test_accuracy"] < 0.2
    assert content["nc1_coarse_train"] is None
    assert all(scores["cluster_accuracy_train"] < 0.65 for scores in content["clp"].values())


@pytest.mark.skipif("NCJAX_SHARED" not in os.environ, reason="NCJAX_SHARED does not name the handed-over data")
def test_real_pytorch_features_hide_their_fine_classes():
    with np.load(Path(os.environ["NCJAX_SHARED"]) / "data" / "coarse_cifar10_features.npz") as data:
        train, test = data["train"][:6000], data["test"]
        train_fine, test_fine = data["train_y"][:6000].astype(np.int32), data["test_y"].astype(np.int32)
    arrays = FeatureArrays(train=train, train_fine=train_fine, test=test, test_fine=test_fine)
    result = evaluate_features(KEY, arrays, MOD5, ("normalised",))
    assert result.probe_test_accuracy > 0.8
    assert result.clp["normalised"].cluster_accuracy_train > 0.88
    assert adjusted_rand_score(train_fine % 5, train_fine) < result.clp["normalised"].ari
