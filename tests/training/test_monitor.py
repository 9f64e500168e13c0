# SPDX-License-Identifier: Apache-2.0
"""Collapse during training: the numbers are those of the features, of every member, when they are due."""

import dataclasses

import numpy as np
import pytest

from ncjax.features.extraction import extract
from ncjax.storage.metrics import read_records
from ncjax.training.loop import fit, prepare
from tests.collapse import oracle

NAMES = ("nc1", "nc1_ratio", "cdnv", "nc2_equinorm", "nc2_equiangularity", "nc2_etf")


def lines(run, folder, keep=lambda epoch, state: None):
    fit(run, folder, keep)
    return [record.values for record in read_records(folder / "metrics.jsonl")]


def observed(config, every, images=2048):
    evaluate = dataclasses.replace(config.evaluate, observe_epochs=every, observe_images=images)
    return dataclasses.replace(config, evaluate=evaluate, labels=("mod:5", "fine"), seeds=2)


@pytest.mark.parametrize("mesh", [(1, 1), pytest.param((4, 2), marks=pytest.mark.slow)])
def test_numbers_are_those_of_the_features(config, dataset, tmp_path, mesh, with_mesh):
    run = prepare(with_mesh(observed(config, every=2), *mesh), dataset)
    kept = {}
    records = lines(run, tmp_path, lambda epoch, state: kept.update({epoch: extract(run, state, dataset).train}))
    assert ["nc1_fine" in record for record in records] == [False, True, False]
    for member in range(4):
        features, coarse = kept[2].layers["features"][member], kept[2].targets[member]
        for level, labels in (("coarse", coarse), ("fine", dataset.train.labels)):
            wanted = oracle.level(features, labels)
            for name in NAMES:
                assert records[1][f"{name}_{level}"][run.members[member].name] == pytest.approx(
                    wanted[name], rel=5e-3
                ), name


@pytest.mark.slow
def test_some_images_are_enough_and_never_means_never(config, dataset, tmp_path):
    (first, *_) = lines(prepare(observed(config, 1, images=40), dataset), tmp_path / "some")
    assert np.isfinite(list(first["nc1_coarse"].values())).all()
    never = lines(prepare(observed(config, 0), dataset), tmp_path / "never")
    assert not any("nc1_coarse" in record for record in never)
