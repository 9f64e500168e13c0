# SPDX-License-Identifier: Apache-2.0
"""Collapse during training: the numbers are those of the features, of every member, when they are due."""

import dataclasses
import json

import numpy as np
import pytest

from ncjax.features.extraction import extract
from ncjax.training.loop import prepare, train
from tests.collapse import oracle

NAMES = ("nc1", "nc1_ratio", "cdnv", "nc2_equinorm", "nc2_equiangularity", "nc2_etf")


def lines(run, folder, keep=lambda epoch, state: None):
    train(run, folder, keep)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def observed(config, every, images=2048):
    evaluate = dataclasses.replace(config.evaluate, observe_epochs=every, observe_images=images)
    return dataclasses.replace(config, evaluate=evaluate, labels=("mod:5", "fine"), seeds=2)


@pytest.mark.parametrize("mesh", [pytest.param((1, 1), marks=pytest.mark.slow), (4, 2)])
def test_numbers_are_those_of_the_features(config, dataset, tmp_path, mesh, with_mesh):
    run = prepare(with_mesh(observed(config, every=2), *mesh), dataset)
    kept = {}
    records = lines(run, tmp_path, lambda epoch, state: kept.update({epoch: extract(run, state, dataset).train}))
    assert ["nc1_fine" in record for record in records] == [False, True, False]
    for member in range(4):
        features, coarse = kept[2].features[member], kept[2].coarse[member]
        for level, labels in (("coarse", coarse), ("fine", dataset.train.labels)):
            wanted = oracle.level(features, labels)
            for name in NAMES:
                assert records[1][f"{name}_{level}"][member] == pytest.approx(wanted[name], rel=5e-3), name


@pytest.mark.slow
def test_some_images_are_enough_and_never_means_never(config, dataset, tmp_path):
    (first, *_) = lines(prepare(observed(config, 1, images=40), dataset), tmp_path / "some")
    assert np.isfinite(first["nc1_coarse"]).all()
    never = lines(prepare(observed(config, 0), dataset), tmp_path / "never")
    assert not any("nc1_coarse" in record for record in never)
