# SPDX-License-Identifier: Apache-2.0
"""One evaluator for arrays, files and members: what it measures, what it leaves out and why."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ncjax.collapse.metrics import METRICS
from ncjax.errors import UserError
from ncjax.evaluation.evaluator import evaluate
from ncjax.features.feature_set import FeatureSet
from ncjax.results import Evaluation
from tests.collapse import oracle
from tests.evaluation.arrays import MOD5, arrays_of, only, pairs

VIEWS = ("raw", "normalised", "residual_pca")


@pytest.fixture(scope="module")
def found():
    return evaluate(pairs(2.0, noise=0.5), label_map=MOD5, views=("raw", "normalised"), bootstrap=3, restarts=3)


def test_parts_agree_with_each_other_and_with_the_oracle(found):
    x, y, _, _ = arrays_of(pairs(2.0, noise=0.5))
    row = only(found)
    distances = [row.value(f"distance_{name}", split="train", level="within") for name in
                 ("same_class", "merged_classes", "other_classes")]  # fmt: skip
    assert distances == sorted(distances)
    assert row.value("clp", view="raw") <= row.value("probe") + 0.02
    assert row.value("nc1", split="train", level="coarse") > 0
    assert row.value("nc1", split="train") == pytest.approx(oracle.level(x, y)["nc1"], rel=1e-2)
    np.testing.assert_allclose(row.class_distances, oracle.distance_matrix(x, y), 1e-3)
    assert row.left_out == ("nc3 and nc4: there are no classifier weights",)
    assert row.find("nc3", level="coarse", split="train").reason


def test_every_measure_of_collapse_has_a_deviation_and_nothing_else_but_few_shot(found):
    row = only(found)
    with_std = {m.metric for m in row.measurements if m.std is not None}
    outputs = {name for metric in METRICS.values() for name in metric.outputs}
    missing = {m.metric for m in row.measurements if m.value is None}
    assert outputs - with_std <= missing
    assert with_std - outputs == {"few_shot"}
    assert row.bootstrap == 3


def test_reconstructed_labels_are_those_of_the_scores(found):
    _, y, _, w = arrays_of(pairs(2.0, noise=0.5))
    row, clusters = only(found), found.clusters["raw"]
    assert clusters.train.shape == (1, len(y))
    np.testing.assert_array_equal(clusters.super_class[0][clusters.train[0]], y % 5)
    np.testing.assert_array_equal(clusters.super_class[0][clusters.test[0]], w % 5)
    assert (clusters.recovered_train[0] == y).mean() == row.value("cluster_accuracy", split="train", view="raw")
    assert (clusters.recovered_test[0] == w).mean() == row.value("cluster_accuracy", split="test", view="raw")
    assert adjusted_rand_score(y, clusters.train[0]) == pytest.approx(
        row.value("cluster_ari", split="train", view="raw")
    )


def test_results_survive_json(found):
    again = Evaluation.from_json(found.to_json())
    assert again == found


@pytest.mark.slow
def test_features_of_a_dead_network_are_measured_too():
    x, y, z, w = arrays_of(pairs(2.0))
    found = evaluate(FeatureSet.from_arrays(0 * x, y, 0 * z, w), label_map=MOD5, views=VIEWS, bootstrap=0)
    row = only(Evaluation.from_json(found.to_json()))
    assert row.value("probe") < 0.2
    assert row.value("nc1", split="train", level="coarse") is None
    assert all(row.value("cluster_accuracy", split="train", view=view) < 0.65 for view in VIEWS)


def test_rows_with_nan_are_left_out_named_and_have_no_cluster():
    x, y, z, w = arrays_of(pairs(3.0))
    bad = x.copy()
    bad[3], bad[17, 2] = np.nan, np.inf
    found, wanted = (
        evaluate(FeatureSet.from_arrays(*arrays, z, w), label_map=MOD5, views=("raw",), bootstrap=0)
        for arrays in ((bad, y), (np.delete(x, [3, 17], 0), np.delete(y, [3, 17])))
    )
    row, clusters = only(found), found.clusters["raw"]
    assert row.left_out[0] == "train: 2 of 300 rows, which hold NaN or infinite numbers (rows 3, 17)"
    assert row.value("nc1", split="train", level="coarse") == pytest.approx(
        only(wanted).value("nc1", split="train", level="coarse"), rel=1e-4
    )
    assert clusters.train.shape == (1, 300)
    np.testing.assert_array_equal(np.flatnonzero(clusters.train[0] < 0), [3, 17])
    np.testing.assert_array_equal(np.delete(clusters.train[0], [3, 17]), wanted.clusters["raw"].train[0])


def test_without_test_split_labels_map_or_weights_the_rest_is_given():
    x, y, _, _ = arrays_of(pairs(3.0))
    row = only(evaluate(FeatureSet.from_arrays(x, y), bootstrap=0))
    assert row.left_out == (
        "coarse and within: no label map that merges classes",
        "test: there is no test split",
        "nc3 and nc4: there are no classifier weights",
        "probes and clp: there is no test split",
        "clp: no label map that merges classes",
    )
    assert row.value("nc1", split="train") > 0


def test_clusters_of_the_training_split_need_no_test_split():
    x, y, _, _ = arrays_of(pairs(6.0))
    found = evaluate(FeatureSet.from_arrays(x, y), label_map=MOD5, views=("raw",), bootstrap=0)
    assert only(found).value("cluster_accuracy", split="train", view="raw") > 0.99
    assert only(found).value("clp", view="raw") is None
    assert found.clusters["raw"].test is None


def test_several_networks_and_layers_are_rows_in_order():
    x, y, z, w = arrays_of(pairs(4.0))
    train = {"deep": np.stack([x, 2 * x]), "shallow": np.stack([x[:, :5], x[:, 5:10]])}
    test = {"deep": np.stack([z, 2 * z]), "shallow": np.stack([z[:, :5], z[:, 5:10]])}
    events = []
    found = evaluate(
        FeatureSet.from_arrays(train, y, test, w),
        label_map="mod:5",
        views=(),
        bootstrap=4,
        on_event=events.append,
    )
    assert [(row.name, row.layer) for row in found.rows] == [
        ("features 0", "deep"), ("features 1", "deep"), ("features 0", "shallow"), ("features 1", "shallow")
    ]  # fmt: skip
    assert [row.bootstrap for row in found.rows] == [0] * 4  # two networks show by themselves how measures vary
    first, scaled = (found.rows[i].value("nc1", split="train", level="coarse") for i in (0, 1))
    assert scaled == pytest.approx(first, rel=1e-5)
    assert {(fit.name, fit.split, fit.level) for fit in found.separation} == {
        (name, split, level)
        for name in ("features 0", "features 1")
        for split in ("train", "test")
        for level in ("coarse", "fine")
    }
    done = [event.done for event in events]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 8)
    assert {event.total for event in events} == {8}  # of each network its probes and its measures of collapse


def test_chosen_metrics_alone_are_measured():
    found = evaluate(pairs(3.0), label_map=MOD5, metrics=("nc1",), views=(), bootstrap=0)
    of_collapse = {m.metric for m in only(found).measurements if "probe" not in m.metric}
    assert of_collapse == {"nc1", "nc1_ratio", "separation", "few_shot"}


def test_classifier_is_measured_at_the_level_of_its_classes():
    x, y, _, _ = arrays_of(pairs(3.0))
    weights = np.random.default_rng(7).normal(size=(5, x.shape[1]))
    means = np.stack([x[y % 5 == label].mean(0) for label in range(5)])
    nearest = ((x[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    differing = (nearest != (x @ weights.T).argmax(1)).mean()
    features = FeatureSet.from_arrays(x, y)
    row = only(evaluate(features, label_map=MOD5, classifier=(weights, None), views=(), bootstrap=0))
    assert row.value("nc4", split="train", level="coarse") == pytest.approx(differing, abs=0.005)
    assert differing > 0.2
    assert row.value("nc4", split="train", level="fine") is None
    assert "nc3 and nc4, fine: the classifier has 5 classes" in row.left_out


@pytest.mark.parametrize(("options", "message"), [
    ({"views": ("umap",)}, "view is 'umap', but must be one of raw"),
    ({"metrics": ("nc9",)}, "nc9"),
    ({"bootstrap": 1}, "bootstrap is 1, but must be 0 or at least 2"),
    ({"restarts": 0}, "restarts is 0"),
    ({"memory_gib": 0.0}, "memory_gib is 0.0"),
    ({"label_map": [0, 2, 0, 2, 0, 2, 0, 2, 0, 2]}, "with none left out"),
    ({"label_map": [0, 1, 0]}, r"train label 9 is out of range: the label map has 3 classes"),
    ({"label_map": "split:2:0"}, "does not merge classes"),
    ({"label_map": "mod:x"}, "is not a whole number"),
    ({"classifier": (np.ones((3, 13)), None)}, r"classifier weights are \[3, 13\], but must be \[classes, 12\]"),
])  # fmt: skip
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message) as error:
        evaluate(pairs(3.0), **options)
    assert "\n" not in str(error.value)


def test_sets_of_different_examples_are_refused_before_all_work():
    with pytest.raises(UserError, match="different examples"):
        evaluate([pairs(3.0), pairs(3.0, seed=1)])
    with pytest.raises(UserError, match="hold no set"):
        evaluate([])


def test_one_class_is_refused():
    with pytest.raises(UserError, match="all labels are 0"):
        evaluate(FeatureSet.from_arrays(np.ones((4, 2), np.float32), np.zeros(4, int)))


@pytest.mark.skipif("NCJAX_SHARED" not in os.environ, reason="NCJAX_SHARED does not name the handed-over data")
def test_real_pytorch_features_hide_their_fine_classes():
    with np.load(Path(os.environ["NCJAX_SHARED"]) / "data" / "coarse_cifar10_features.npz") as data:
        features = FeatureSet.from_arrays(data["train"][:6000], data["train_y"][:6000], data["test"], data["test_y"])
    row = only(evaluate(features, label_map=MOD5, views=("normalised",), bootstrap=0))
    assert row.value("probe") > 0.8
    assert row.value("cluster_accuracy", split="train", view="normalised") > 0.88
