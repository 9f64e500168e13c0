# SPDX-License-Identifier: Apache-2.0
"""results/ of a work directory: every view ever evaluated is kept, with its reconstructed labels."""

import dataclasses

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.evaluation.evaluator import evaluate
from ncjax.evaluation.store import read_clusters, write_evaluation
from ncjax.results import Evaluation, join
from tests.evaluation.arrays import MOD5, pairs


def found(*views, epoch=1, separation=3.0):
    features = dataclasses.replace(pairs(separation), epoch=epoch)
    return evaluate(features, label_map=MOD5, views=views, bootstrap=0, restarts=2)


def read(folder):
    return Evaluation.from_json((folder / "results" / "evaluation.json").read_text())


def test_views_that_were_evaluated_earlier_are_kept(tmp_path):
    first, second = found("raw"), found("normalised")
    write_evaluation(tmp_path, first)
    write_evaluation(tmp_path, second)
    (row,) = read(tmp_path).rows
    assert set(read(tmp_path).views) == {"raw", "normalised"}
    assert row.value("clp", view="raw") == first.rows[0].value("clp", view="raw")
    assert row.value("clp", view="normalised") == second.rows[0].value("clp", view="normalised")
    kept = read_clusters(tmp_path, 1)
    np.testing.assert_array_equal(kept["raw"].train, first.clusters["raw"].train)
    np.testing.assert_array_equal(kept["normalised"].matching, second.clusters["normalised"].matching)


def test_the_same_view_is_replaced(tmp_path):
    write_evaluation(tmp_path, found("raw", separation=0.0))
    better = found("raw", separation=6.0)
    write_evaluation(tmp_path, better)
    assert read(tmp_path) == better
    np.testing.assert_array_equal(read_clusters(tmp_path, 1)["raw"].train, better.clusters["raw"].train)


def test_each_epoch_has_a_file_and_controls_their_own(tmp_path):
    parts = [found("raw", epoch=epoch) for epoch in (None, 0, 5)]
    write_evaluation(tmp_path, join(parts))
    files = {path.name for path in (tmp_path / "results" / "clusters").iterdir()}
    assert files == {"raw_pixels.npz", "0.npz", "5.npz"}
    for part, epoch in zip(parts, (None, 0, 5), strict=True):
        np.testing.assert_array_equal(read_clusters(tmp_path, epoch)["raw"].train, part.clusters["raw"].train)


def test_results_of_an_earlier_version_are_replaced(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "evaluation.json").write_text('{"run": {}, "rows": [{"kind": "trained"}]}')
    write_evaluation(tmp_path, found("raw"))
    assert len(read(tmp_path).rows) == 1


def test_missing_or_damaged_clusters_are_named(tmp_path):
    with pytest.raises(UserError, match=r"clusters/3\.npz cannot be read"):
        read_clusters(tmp_path, 3)
    (tmp_path / "results" / "clusters").mkdir(parents=True)
    (tmp_path / "results" / "clusters" / "3.npz").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"clusters/3\.npz cannot be read"):
        read_clusters(tmp_path, 3)
