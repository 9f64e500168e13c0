# SPDX-License-Identifier: Apache-2.0
"""Features of runs: any layer that the network names, at kept epochs or from checkpoints, of other images too."""

import dataclasses
import shutil

import numpy as np
import pytest

from ncjax.config import EvaluateConfig
from ncjax.data import Dataset, Split
from ncjax.errors import UserError
from ncjax.features.extraction import extract_features
from ncjax.pipeline import train


def test_logits_are_the_classifier_of_the_features(trained):
    features = trained.features(2)
    for split in (features.train, features.test):
        expected = np.einsum("snd,sdc->snc", split.layers["features"], features.classifier.weights)
        expected += features.classifier.bias[:, None]
        np.testing.assert_allclose(split.logits, expected, atol=1e-4)
        np.testing.assert_array_equal(split.targets[0], split.labels % 5)
        np.testing.assert_array_equal(split.targets[1], split.labels)


def test_features_of_a_checkpoint_are_those_that_were_kept(trained):
    kept = trained.features(1)
    shutil.rmtree(trained.workdir / "features" / "1")
    again = extract_features(trained, epoch=1, layers=("first", "features"))
    assert again.epoch == kept.epoch == 1
    assert again.names == kept.names
    for layer in ("first", "features"):
        np.testing.assert_allclose(again.train.layers[layer], kept.train.layers[layer], atol=1e-6)
    np.testing.assert_array_equal(again.train.targets, kept.train.targets)


def test_layers_that_were_not_kept_come_from_the_checkpoint(trained):
    found = extract_features(trained, layers=("second", "features"))
    assert found.layers == ("second", "features")
    np.testing.assert_allclose(found.train.layers["second"], found.train.layers["features"], atol=1e-6)  # of an mlp


def test_other_images_are_normalized_as_the_runs_own(trained, dataset):
    rows = np.arange(20)
    part = Dataset(
        name="part",
        train=Split(images=dataset.train.images[rows], labels=dataset.train.labels[rows]),
        test=dataset.test,
        class_names=dataset.class_names,
        fingerprint="part",
    )
    found, whole = extract_features(trained, part), trained.features()
    np.testing.assert_allclose(found.train.layers["features"], whole.train.layers["features"][:, :20], atol=1e-5)
    np.testing.assert_array_equal(found.train.labels, dataset.train.labels[:20])


def test_unknown_layers_are_refused_before_training(trained, dataset, small_config, tmp_path):
    with pytest.raises(UserError, match=r"'third'.*first, second"):
        extract_features(trained, layers=("third",))
    asking = dataclasses.replace(small_config, evaluate=EvaluateConfig(layers=("third",)))
    with pytest.raises(UserError, match="third"):
        train(asking, dataset, workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()
