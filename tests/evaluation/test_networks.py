# SPDX-License-Identifier: Apache-2.0
"""Members of runs as networks: kinds, label maps, classifiers, layers."""

import dataclasses

import numpy as np
import pytest

from ncjax.evaluation.evaluator import evaluate
from ncjax.evaluation.networks import NOT_KEPT, list_networks


def test_members_bring_their_label_maps_and_names(trained):
    features = trained.features(2).choose_layers(["features"])
    coarse, fine = evaluate(features, views=("raw",), restarts=2, bootstrap=2).rows
    assert (coarse.name, coarse.kind, coarse.label_map) == (trained.members[0].name, "trained", "mod:5")
    assert (fine.name, fine.kind, fine.label_map) == (trained.members[1].name, "fine", "fine")
    assert coarse.super_class == fine.super_class == (0, 1, 2, 3, 4) * 2  # of the default map, for the fine one
    assert (coarse.seed, coarse.lr, coarse.weight_decay, coarse.epoch, coarse.member) == (0, 0.05, 5e-4, 2, 0)


@pytest.mark.slow
def test_both_layers_of_a_run_are_measured_and_the_classifier_with_its_own(trained):
    rows = evaluate(trained.features(2), views=(), bootstrap=0).rows
    assert [(row.layer, row.kind) for row in rows] == [
        ("first", "trained"), ("first", "fine"), ("features", "trained"), ("features", "fine")
    ]  # fmt: skip
    assert rows[0].value("nc3", level="coarse") is None
    assert "nc3 and nc4: the classifier reads the layer features, not first" in rows[0].left_out
    assert rows[2].value("nc3", level="coarse") > 0
    assert rows[3].value("nc3", level="fine") > 0


def test_self_duality_is_that_of_the_classes_that_a_member_has(trained):
    """NC3 and NC4 of the test split by NumPy, from the logits that were kept."""
    features = trained.features(2)
    rows = evaluate(features.choose_layers(["features"]), views=(), bootstrap=0).rows
    for index, (row, classes, level) in enumerate(zip(rows, (5, 10), ("coarse", "fine"), strict=True)):
        weights = features.classifier.weights[index, :, :classes].T.astype(np.float64)
        train, test = (split.layers["features"][index].astype(np.float64) for split in (features.train, features.test))
        labels = [split.targets[index] for split in (features.train, features.test)]
        means = np.stack([train[labels[0] == c].mean(0) for c in range(classes)])
        centred = np.stack([test[labels[1] == c].mean(0) for c in range(classes)])
        centred -= centred.mean(0)
        wanted = np.linalg.norm(weights / np.linalg.norm(weights) - centred / np.linalg.norm(centred))
        assert row.value("nc3", level=level) == pytest.approx(wanted, rel=1e-4)
        nearest = ((test[:, None] - means[None]) ** 2).sum(-1).argmin(1)
        differing = (nearest != features.test.logits[index, :, :classes].argmax(-1)).mean()
        assert row.value("nc4", level=level) == pytest.approx(differing, abs=0.03)  # an image at a tie


def test_accuracies_are_over_the_classes_that_a_member_has(trained):
    features = trained.features(2)
    (coarse, _) = evaluate(features.choose_layers(["features"]), views=(), bootstrap=0).rows
    right = features.test.logits[0, :, :5].argmax(-1) == features.test.targets[0]
    assert coarse.value("accuracy", level="coarse") == right.mean()
    points = {(p.member, p.epoch): p.value for p in trained.metrics() if p.metric == "test_accuracy"}
    assert coarse.value("accuracy", level="coarse") == pytest.approx(points[coarse.name, 2])


def test_random_initialization_has_no_accuracy(trained):
    row = evaluate(trained.features(0).select([0]), views=(), bootstrap=0).rows[0]
    assert (row.kind, row.epoch) == ("random_init", 0)
    assert row.value("accuracy", level="coarse") is None


def test_given_label_map_overrides_the_members_own(trained):
    features = trained.features(2).choose_layers(["features"])
    coarse, fine = evaluate(features, label_map="adjacent:5", views=(), bootstrap=0).rows
    assert coarse.super_class == fine.super_class == (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    assert coarse.value("nc3", level="coarse") is None
    assert any("the classifier is of mod:5, not of the label map" in line for line in coarse.left_out)
    assert fine.value("nc3", level="fine") > 0


def test_features_without_their_classifier_say_so(trained):
    features = dataclasses.replace(trained.features(2).choose_layers(["features"]), classifier=None)
    row = evaluate(features, views=(), bootstrap=0).rows[0]
    assert f"nc3 and nc4: {NOT_KEPT}" in row.left_out
    assert row.value("nc1", level="coarse") > 0


def test_seeds_of_one_setting_are_not_resampled(trained):
    features = trained.features(2).choose_layers(["features"])
    one, other = list_networks([features], None, None)
    assert one.setting != other.setting
    twice = dataclasses.replace(
        features, members=tuple(dataclasses.replace(trained.members[0], seed=seed) for seed in (0, 1))
    )
    assert [row.bootstrap for row in evaluate(twice, views=(), bootstrap=2).rows] == [0, 0]
    assert [row.bootstrap for row in evaluate(features, views=(), bootstrap=2).rows] == [2, 2]


def test_measurements_say_themselves_why_a_member_has_no_classifier(trained):
    features = dataclasses.replace(trained.features(2).choose_layers(["features"]), classifier=None)
    row = evaluate(features, views=(), bootstrap=0).rows[0]
    assert row.find("nc3", level="coarse").reason == row.find("nc4", level="fine").reason
    assert row.find("nc3", level="coarse").reason == NOT_KEPT


def test_an_unknown_epoch_is_not_random_initialization(trained):
    features = dataclasses.replace(trained.features(2).choose_layers(["features"]), epoch=None)
    assert [row.kind for row in evaluate(features, views=(), metrics=("cdnv",), bootstrap=0).rows] == [
        "trained",
        "fine",
    ]
