# SPDX-License-Identifier: Apache-2.0
"""Stages over a work directory: what they write, controls, files as layers."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.evaluation.clp import cluster_and_linear_probe
from ncjax.evaluation.evaluator import evaluate
from ncjax.evaluation.store import read_clusters
from ncjax.evaluation.views import VIEWS
from ncjax.features.feature_set import FeatureSet
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


@pytest.mark.slow
def test_views_that_are_planes_come_last_and_an_interrupt_keeps_the_others(found, workdir, tmp_path, monkeypatch):
    def plane(points):
        return points[:, :2]

    def interrupted(points):
        raise KeyboardInterrupt

    copy = tmp_path / "run"
    shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns("results"))
    (copy / "results").mkdir()
    shutil.copy(workdir / "results" / "training.json", copy / "results")
    asked = {"views": ("tsne", "raw"), "bootstrap": 2}
    monkeypatch.setitem(VIEWS, "tsne", VIEWS["tsne"]._replace(plane=interrupted))
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(copy, **asked)
    kept = Evaluation.from_json((copy / "results" / "evaluation.json").read_text())
    assert kept.rows == found.rows
    monkeypatch.setitem(VIEWS, "tsne", VIEWS["tsne"]._replace(plane=plane))
    whole = evaluate_run(copy, **asked)
    assert tuple(whole.views) == ("tsne", "raw")
    assert Evaluation.from_json((copy / "results" / "evaluation.json").read_text()) == whole
    for row, before in zip(whole.rows, found.rows, strict=True):
        assert set(before.measurements) < set(row.measurements)
        more = {(one.metric, one.view) for one in set(row.measurements) - set(before.measurements)}
        assert {view for _, view in more} == {"tsne"}
        assert ("cluster_accuracy", "tsne") in more
    assert set(read_clusters(copy, 2)) == {"raw", "tsne"}


@pytest.mark.slow
def test_controls_that_are_not_measured_again_stay_with_their_clusters(found, tmp_path, workdir):
    """Two label maps, then one of them with another view: what is not measured again is what it was."""
    config = dataclasses.replace(TINY, labels=("mod:5", "mod:2", "fine"))
    run = train(config, workdir=tmp_path / "run")
    first = evaluate_run(run, bootstrap=0)
    second = evaluate_run(run, ("normalised",), controls=False, control_maps=1, bootstrap=0)
    assert [(row.kind, row.super_class[2]) for row in first.rows] == [
        ("raw_pixels", 2), ("raw_pixels", 0), ("random_init", 2), ("random_init", 0), ("trained", 2), ("trained", 0),
        ("fine", 2), ("fine", 0),
    ]  # fmt: skip
    assert [row.member for row in first.rows] == [None] * 4 + [0, 1, 2, 2]
    assert [row.label_map for row in first.rows[:4]] == ["mod:5", "mod:2"] * 2
    assert any("Only the first 1 of 2 label maps" in note and "mod:2" in note for note in second.notes)
    written = Evaluation.from_json((run.workdir / "results" / "evaluation.json").read_text())
    place = {(row.kind, row.super_class): row for row in written.rows}
    again = {(row.kind, row.super_class): row for row in second.rows}
    for number, row in enumerate(first.rows):
        key = row.kind, row.super_class
        assert place[key].value("clp", view="raw") == row.value("clp", view="raw")
        assert (place[key].value("clp", view="normalised") is not None) == (key in again)
        clusters = read_clusters(run.workdir, row.epoch)["raw"]
        at = [one for one in written.rows if one.epoch == row.epoch].index(place[key])
        np.testing.assert_array_equal(clusters.train[at], first.clusters["raw"].train[number])
        np.testing.assert_array_equal(clusters.test[at], first.clusters["raw"].test[number])
    assert len(written.rows) == len(first.rows)


def test_names_of_classes_reach_the_results(found, tmp_path):
    assert found.provenance.class_names == tuple(map(str, range(10)))
    x, y = some()
    np.savez(tmp_path / "a.npz", features=x, labels=np.where(y == 1, 2**40, y))
    made = evaluate_files([tmp_path / "a.npz"], views=(), bootstrap=0)
    assert made.provenance.class_names == ("0", "2", "3", "4", "5", str(2**40))


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
    ({"evaluate": EvaluateConfig(variants=("umap",))}, "view is 'umap', but must be one of raw"),
    ({"evaluate": EvaluateConfig(headline="umap")}, "evaluate.headline is 'umap', but must be one of raw"),
    ({"evaluate": EvaluateConfig(labels="fine")}, "evaluate.labels is fine, but must merge"),
    ({"evaluate": EvaluateConfig(labels="pairings")}, "evaluate.labels is pairings, but must merge"),
    ({"evaluate": EvaluateConfig(labels="shuffled:mod:5:0")}, "evaluate.labels is shuffled:mod:5:0, but must merge"),
    ({"labels": ("mod:11",)}, "mod:11"),
])  # fmt: skip
def test_bad_configs_are_refused_before_anything_is_written(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(TINY, **change), workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["umap", "", "RAW", "raw ", "residual-pca", "pca", "None", "raw,tsne", "normalized", "t"]
)
def test_an_unknown_view_is_an_error_through_every_door(name, workdir):
    before = (workdir / "results" / "evaluation.json").read_bytes() if (workdir / "results").exists() else b""
    x, y = some()
    for evaluated in (
        lambda: evaluate_run(workdir, (name,)),
        lambda: evaluate(FeatureSet.from_arrays(x, y, x, y), label_map="mod:3", views=(name,)),
        lambda: cluster_and_linear_probe(x, y, x, y, "mod:3", view=name),
    ):
        with pytest.raises(UserError, match="but must be one of raw, normalised"):
            evaluated()
    assert not before or (workdir / "results" / "evaluation.json").read_bytes() == before


def test_number_of_label_maps_with_controls_is_checked(workdir):
    with pytest.raises(UserError, match="control_maps is 0, but must be 1 or more"):
        evaluate_run(workdir, control_maps=0)


def test_run_without_features_says_what_to_do(workdir, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "members.json"):
        (tmp_path / "run" / name).write_bytes((workdir / name).read_bytes())
    with pytest.raises(UserError, match="holds no features; run: ncjax train"):
        evaluate_run(tmp_path / "run")
