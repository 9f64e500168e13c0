# SPDX-License-Identifier: Apache-2.0
"""Stages over a work directory: what they write, controls, files as layers."""

import dataclasses
import json

import numpy as np
import pytest

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.evaluation.store import read_clusters
from ncjax.pipeline import evaluate_files, evaluate_run, export_features, train
from ncjax.results import Evaluation, TrainingSummary
from ncjax.typed_json import structure
from tests.features.arrays import D, N, some

TINY = Config(
    labels=("mod:5", "shuffled:mod:5:0"),
    data=DataConfig(train_examples=320, test_examples=100),
    model=ModelConfig(name="mlp", width=8),
    optim=OptimConfig(epochs=2, batch=64, lr=(0.1,)),
    evaluate=EvaluateConfig(epochs=(0,), variants=("raw",), restarts=2),
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    train(TINY, workdir=folder, command="ncjax train tiny")
    return folder


@pytest.fixture(scope="module")
def found(workdir):
    return evaluate_run(workdir, bootstrap=2)


def test_rows_are_pixels_then_the_first_label_map_at_the_start_then_all_members(found, workdir):
    assert [(row.kind, row.epoch) for row in found.rows] == [
        ("raw_pixels", None), ("random_init", 0), ("trained", 2), ("shuffled", 2)
    ]  # fmt: skip
    assert [row.bootstrap for row in found.rows] == [0, 2, 2, 2]
    assert found.provenance.command == "ncjax train tiny"
    assert found.provenance.dataset == "digits"
    assert found.provenance.config["labels"] == ["mod:5", "shuffled:mod:5:0"]
    assert set(found.provenance.wall_secs) == {"compile", "train", "evaluate"}
    assert any("Raw pixels of this data set already cluster" in note for note in found.notes)


def test_what_is_written_is_what_is_returned(found, workdir):
    assert Evaluation.from_json((workdir / "results" / "evaluation.json").read_text()) == found
    last = read_clusters(workdir, 2)["raw"]
    np.testing.assert_array_equal(last.train, found.clusters["raw"].train[2:])
    np.testing.assert_array_equal(last.test, found.clusters["raw"].test[2:])
    with np.load(workdir / "results" / "clusters" / "2.npz") as stored:
        assert stored["names"].tolist() == [row.name for row in found.rows[2:]]
    summary = structure(TrainingSummary, json.loads((workdir / "results" / "training.json").read_text()), "x")
    assert summary.failures == ()


def test_pandas_gets_a_line_a_measurement(found):
    table = found.to_pandas()
    wanted = {"member", "label_map", "lr", "weight_decay", "seed", "epoch", "split", "level", "metric", "value"}
    assert wanted <= set(table.columns)
    (line,) = table[(table.kind == "trained") & (table.metric == "clp") & (table.view == "raw")].to_dict("records")
    assert line["value"] == found.rows[2].value("clp", view="raw")
    assert (line["member"], line["lr"], line["seed"]) == ("mod:5/lr=0.1/wd=5e-4/seed=0", 0.1, 0)


def test_another_view_joins_those_that_are_there(workdir, found):
    later = evaluate_run(workdir, ("normalised",), controls=False, bootstrap=0)
    assert [row.kind for row in later.rows] == ["random_init", "trained", "shuffled"]
    written = Evaluation.from_json((workdir / "results" / "evaluation.json").read_text())
    assert set(written.views) == {"raw", "normalised"}
    assert written.rows[1].value("clp", view="raw") == found.rows[2].value("clp", view="raw")
    assert set(read_clusters(workdir, 2)) == {"raw", "normalised"}


def test_exported_features_have_the_names_of_the_members(workdir):
    (first, last) = export_features(workdir)
    assert (first.name, last.name) == ("0.npz", "2.npz")
    with np.load(last, allow_pickle=False) as arrays:
        assert arrays["members"].tolist()[0] == "mod:5/lr=0.1/wd=5e-4/seed=0"
        assert arrays["train_features"].shape == (2, 320, 8)
        np.testing.assert_array_equal(arrays["train_coarse"][0], arrays["train_fine"] % 5)


def test_run_on_arrays_is_evaluated_without_pixels(dataset, tmp_path):
    config = dataclasses.replace(TINY, data=DataConfig(), optim=OptimConfig(epochs=1, batch=16), labels=("mod:5",))
    train(config, dataset, workdir=tmp_path / "run")
    found = evaluate_run(tmp_path / "run", bootstrap=0)
    assert [row.kind for row in found.rows] == ["random_init", "trained"]
    assert any("Raw pixels are no row" in note for note in found.notes)


def test_files_are_layers_with_the_law_of_separation(tmp_path):
    """Each layer has a third of the spread of the one before: log D falls by log 9 a layer."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 6
    means, noise = rng.normal(size=(6, D)), rng.normal(size=(N, D))
    paths = [tmp_path / f"{layer}.npz" for layer in range(3)]
    for layer, path in enumerate(paths):
        np.savez(path, features=means[y] + 0.1 * noise / 3**layer, labels=y, w=np.ones((3, D)))
    found = evaluate_files(paths, label_map="mod:3", views=(), bootstrap=0, command="ncjax evaluate ...")
    assert [row.layer for row in found.rows] == ["0.npz", "1.npz", "2.npz"]
    assert [row.value("nc4", split="train", level="coarse") is None for row in found.rows] == [True, True, False]
    law = {fit.level: fit for fit in found.separation}
    assert set(law) == {"coarse", "fine"}
    assert law["fine"].slope == pytest.approx(-np.log(9), rel=0.02)
    assert law["fine"].r2 == pytest.approx(1, abs=1e-3)
    assert found.provenance.command == "ncjax evaluate ..."
    assert found.provenance.device


def test_files_of_different_examples_are_refused(tmp_path):
    for name, count in (("a", 60), ("b", 66)):
        x, y = some(n=count)
        np.savez(tmp_path / f"{name}.npz", features=x, labels=y)
    with pytest.raises(UserError, match="different examples"):
        evaluate_files([tmp_path / "a.npz", tmp_path / "b.npz"])


@pytest.mark.parametrize(("change", "message"), [
    ({"evaluate": EvaluateConfig(variants=("umap",))}, "view 'umap' is unknown"),
    ({"evaluate": EvaluateConfig(labels="shuffled:mod:5:0")}, "evaluate.labels is shuffled:mod:5:0, but must merge"),
    ({"labels": ("mod:11",)}, "mod:11"),
])  # fmt: skip
def test_bad_configs_are_refused_before_anything_is_written(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(TINY, **change), workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_run_without_features_says_what_to_do(workdir, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "members.json"):
        (tmp_path / "run" / name).write_bytes((workdir / name).read_bytes())
    with pytest.raises(UserError, match="holds no features; run: ncjax train"):
        evaluate_run(tmp_path / "run")
