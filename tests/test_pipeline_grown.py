# SPDX-License-Identifier: Apache-2.0
"""Runs that get members, epochs and views after their end, beside runs that had all of them from the start."""

import dataclasses
import hashlib
import shutil

import jax
import numpy as np
import pytest

from ncjax.config import Config, DataConfig, EvaluateConfig, LossConfig, MeshConfig, ModelConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.evaluation.store import cluster_file
from ncjax.features.extraction import extract_features
from ncjax.features.run import Run
from ncjax.features.store import open_features
from ncjax.pipeline import evaluate_run, export_features, train
from ncjax.report import write_report
from ncjax.report.read import read_results
from ncjax.results import Evaluation
from ncjax.storage.workdir import run_id

TINY = Config(
    labels=("mod:5",),
    seeds=2,
    data=DataConfig(train_examples=160, test_examples=60),
    model=ModelConfig(name="mlp", width=4),
    optim=OptimConfig(epochs=2, batch=40, lr=(0.1,), schedule="cosine"),
    evaluate=EvaluateConfig(epochs=(0, 1), variants=("raw",), restarts=1, layers=("first", "features")),
    checkpoint_epochs=1,
    chunk_steps=4,
)
CONSTANT = dataclasses.replace(TINY, optim=dataclasses.replace(TINY.optim, schedule="constant"))


def with_optim(config, **changes):
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **changes))


def with_evaluate(config, **changes):
    return dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, **changes))


def with_seeds(config, seeds):
    return dataclasses.replace(config, seeds=seeds)


def content(folder):
    """A checksum of every file but config.json and the lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in ("config.json", ".lock")
    }


def numbers(run):
    """Metrics by member, metric and epoch, and features and logits by member, split and epoch."""
    found = {(p.member, p.metric, p.epoch): p.value for p in run.metrics()}
    for epoch in run.epochs:
        features = run.features(epoch)
        for split in ("train", "test"):
            of_split = getattr(features, split)
            for number, name in enumerate(features.names):
                found[name, split, epoch] = np.asarray(of_split.layers["features"][number])
                found[name, split, epoch, "first"] = np.asarray(of_split.layers["first"][number])
                found[name, split, epoch, "logits"] = of_split.logits[number]
                found[name, split, epoch, "targets"] = of_split.targets[number]
                found[name, epoch, "weights"] = features.classifier.weights[number]
    return found


def assert_same(ours, theirs, atol=0.0):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, atol=atol, rtol=atol, err_msg=str(key))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A finished run of two seeds."""
    return train(TINY, workdir=tmp_path_factory.mktemp("two") / "run", command="ncjax train two").workdir


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """A finished run of five seeds from the start."""
    return train(with_seeds(TINY, 5), workdir=tmp_path_factory.mktemp("five") / "run")


@pytest.fixture(scope="module")
def grown(two, tmp_path_factory):
    """The run of two, grown to five."""
    folder = tmp_path_factory.mktemp("grown") / "run"
    shutil.copytree(two, folder)
    return train(with_seeds(TINY, 5), workdir=folder, command="ncjax train five")


@pytest.fixture
def workdir(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    return tmp_path / "run"


def test_members_that_were_added_are_those_of_a_run_that_had_them_from_the_start(grown, five):
    assert [member.name for member in grown.members] == [member.name for member in five.members]
    assert [len(part.members) for part in grown.parts] == [2, 3]
    assert_same(numbers(grown), numbers(five), atol=1e-5)
    assert [p[:4] for p in grown.metrics()] == [p[:4] for p in five.metrics()]
    ours, theirs = grown.state(), five.state()
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert grown.has_ended
    assert grown.expected_epochs == grown.epochs == (0, 1, 2)


def test_what_was_there_stays_byte_for_byte(grown, two):
    before, after = content(two), content(grown.workdir)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"cohorts"}
    assert run_id(grown.workdir) == run_id(two)
    assert run_id(grown.workdir / "cohorts" / "1") not in ("", run_id(two))


def test_opened_run_is_the_trained_one_and_the_same_command_changes_nothing(grown):
    assert Run.open(grown.workdir) == grown
    before = content(grown.workdir)
    config = (grown.workdir / "config.json").read_bytes()
    again = train(with_seeds(TINY, 5), workdir=grown.workdir)
    assert again == grown
    assert content(grown.workdir) == before
    assert (grown.workdir / "config.json").read_bytes() == config


@pytest.mark.slow
def test_evaluation_and_report_list_all_members_once(grown, five, tmp_path):
    shutil.copytree(grown.workdir, tmp_path / "run")
    ours, theirs = (evaluate_run(folder, bootstrap=0) for folder in (tmp_path / "run", five.workdir))
    assert [(r.name, r.kind, r.epoch, r.member, r.layer) for r in ours.rows] == [
        (r.name, r.kind, r.epoch, r.member, r.layer) for r in theirs.rows
    ]
    for one, other in zip(ours.rows, theirs.rows, strict=True):
        for metric in ("coarse_accuracy", "nc1", "nc3"):
            for level in ("coarse", "fine"):
                value = other.value(metric, split="train", level=level)
                found = one.value(metric, split="train", level=level)
                assert found == (None if value is None else pytest.approx(value, abs=1e-4, rel=1e-3))
    assert ours.notes == theirs.notes
    assert Evaluation.from_json((tmp_path / "run" / "results" / "evaluation.json").read_bytes()) == ours
    records = read_results(tmp_path / "run").metrics
    assert [set(record.values["test_loss"]) for record in records] == [{m.name for m in grown.members}] * 2
    write_report(tmp_path / "run")
    assert cluster_file(tmp_path / "run", 2).exists()
    (file,) = export_features(tmp_path / "run", (2,))
    with np.load(file) as arrays:
        assert arrays["members"].tolist() == [member.name for member in grown.members]


def test_features_of_a_member_are_read_from_the_part_that_has_it(grown):
    whole = grown.features(2)
    for number in range(5):
        rows = open_features(grown.workdir, 2, "train", number)
        np.testing.assert_array_equal(rows[:], whole.train.layers["features"][number])
    with pytest.raises(UserError, match="no member 5"):
        open_features(grown.workdir, 2, "train", 5)


def test_features_are_extracted_of_all_parts(grown):
    found = extract_features(grown, layers=("first",), epoch=1)
    again = extract_features(grown, grown.dataset, layers=("first",), epoch=1)
    assert found.names == again.names == tuple(member.name for member in grown.members)
    np.testing.assert_allclose(again.train.layers["first"], found.train.layers["first"], atol=1e-5)


def test_run_grows_twice_by_rates_and_decays(workdir):
    """The members of three parts are listed in the order of the config."""
    first = train(with_optim(TINY, lr=(0.05, 0.1)), workdir=workdir)
    config = with_evaluate(with_optim(with_seeds(TINY, 3), lr=(0.05, 0.1)), variants=("raw", "normalised"))
    second = train(config, workdir=workdir)
    assert [len(part.members) for part in first.parts] == [2, 2]
    assert [len(part.members) for part in second.parts] == [2, 2, 2]
    assert [(member.lr, member.seed) for member in second.members] == [
        (lr, seed) for lr in (0.05, 0.1) for seed in range(3)
    ]
    assert {folder.name for folder in (workdir / "cohorts").iterdir()} == {"1", "2"}
    whole = train(config)
    assert_same(numbers(Run.open(workdir)), numbers(whole), atol=1e-5)


def test_more_views_change_config_json_alone(workdir):
    before = content(workdir)
    run = train(with_evaluate(TINY, variants=("raw", "normalised"), restarts=2, layers=("features",)), workdir=workdir)
    assert content(workdir) == before
    assert Run.open(workdir).config.evaluate.variants == ("raw", "normalised")
    assert run.parts == (run,)
    assert run.features(2).layers == ("features",)


@pytest.mark.slow
def test_layers_that_were_not_kept_are_made_again_where_checkpoints_are_left(tmp_path):
    start = with_evaluate(TINY, layers=("features",))
    train(start, workdir=tmp_path / "run")
    run = train(TINY, workdir=tmp_path / "run")
    found = evaluate_run(run, bootstrap=0)
    assert {(row.epoch, row.layer) for row in found.rows if row.epoch} == {
        (epoch, layer) for epoch in (1, 2) for layer in ("first", "features")
    }
    assert any("first were not kept" in note for note in found.notes)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    with pytest.raises(UserError, match="second were not kept of epoch 1, and no checkpoint of it is left; ask for"):
        train(with_evaluate(TINY, layers=("second", "features")), workdir=tmp_path / "run")


def test_order_of_the_members_may_change(workdir):
    both = train(with_optim(TINY, lr=(0.1, 0.05)), workdir=workdir)
    run = train(with_optim(TINY, lr=(0.05, 0.1)), workdir=workdir)
    assert [member.lr for member in run.members] == [0.05, 0.05, 0.1, 0.1]
    assert Run.open(workdir) == run
    assert_same(numbers(run), numbers(both))


@pytest.mark.slow
@pytest.mark.parametrize("later", [("mod:5", "fine"), ("fine", "mod:5"), ("mod:2", "mod:5")])
def test_label_maps_are_joined_in_the_order_of_the_config(workdir, later):
    """Ten outputs beside five: what a network lacks is padded, and no member is predicted to be there."""
    run = train(dataclasses.replace(TINY, labels=later), workdir=workdir)
    assert [member.label_map.name for member in run.members] == [one for one in later for _ in range(2)]
    features = run.features()
    outputs = 10 if "fine" in later else 5
    assert features.train.logits.shape == (4, 160, outputs)
    assert features.classifier.weights.shape == (4, 4, outputs)
    linear = np.einsum("snd,sdc->snc", features.train.layers["features"], features.classifier.weights)
    linear += features.classifier.bias[:, None]
    np.testing.assert_allclose(linear, features.train.logits, atol=1e-4, rtol=1e-4)
    old = [number for number, member in enumerate(run.members) if member.label_map.name == "mod:5"]
    assert features.train.logits[old].argmax(-1).max() < 5
    found = evaluate_run(run, bootstrap=0)
    trained = [row for row in found.rows if row.epoch == 2 and row.layer == "features"]
    assert len({(row.name, row.super_class) for row in trained}) == len(trained)
    assert {row.name for row in trained} == {member.name for member in run.members}
    assert all(row.name == run.members[row.member].name for row in trained)
    if "fine" in later:
        with pytest.raises(UserError, match=r"other numbers of classes; ask for each part: run\.parts\[0\]\.state"):
            run.state()
        assert int(run.parts[1].state().step) == 8


def test_new_members_of_old_label_maps_have_the_outputs_of_a_run_of_all(workdir):
    config = dataclasses.replace(TINY, labels=("mod:5", "fine"), seeds=3)
    ours, theirs = numbers(train(config, workdir=workdir)), numbers(train(config))
    new = "mod:5/lr=0.1/wd=5e-4/seed=2"
    assert_same({k: v for k, v in ours.items() if k[0] == new}, {k: v for k, v in theirs.items() if k[0] == new}, 1e-5)


def with_data(**changes):
    return dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, **changes))


REFUSED = {
    "seed": (
        dataclasses.replace(TINY, seed=1),
        r"\(seed: 0 there, 1 now\): member .*seed=0 is there, and none is taken",
    ),
    "seeds": (with_seeds(TINY, 1), r"\(seeds: 2 there, 1 now\): member .*seed=1 is there, and none is taken away"),
    "labels": (
        dataclasses.replace(TINY, labels=("fine",)),
        r"labels: \['mod:5'\] there, \['fine'\] now\): member mod:5",
    ),
    "lr": (with_optim(TINY, lr=(0.2,)), r"optim.lr: \[0.1\] there, \[0.2\] now\).* ask for it too"),
    "weight_decay": (with_optim(TINY, weight_decay=(0.0,)), r"optim.weight_decay: .*ask for it too"),
    "model": (
        dataclasses.replace(TINY, seeds=5, model=ModelConfig(name="mlp", width=8)),
        r"model.width: 4 there, 8 now\): all members of a run have the same network",
    ),
    "batch": (with_optim(TINY, batch=80), r"optim.batch: 40 there, 80 now\): all members of a run are trained alike"),
    "data": (with_data(train_examples=200), r"data.train_examples: 160 there, 200 now\): all .* on the same data"),
    "augmentation": (with_data(flip=True), "all members of a run are trained on the same data"),
    "loss": (dataclasses.replace(TINY, loss=LossConfig(label_smoothing=0.1)), "minimize the same loss"),
    "chunks": (dataclasses.replace(TINY, chunk_steps=2), r"chunk_steps: 4 there, 2 now\): it is fixed when a run"),
    "controls": (
        with_evaluate(TINY, labels="mod:2"),
        r"evaluate.labels: '' there, 'mod:2' now\): members.json says what",
    ),
    "observed images": (with_evaluate(TINY, observe_images=9), r"1024 there, 9 now\): metrics.jsonl is of the same"),
    "fewer epochs": (
        with_evaluate(with_optim(TINY, epochs=1), epochs=()),
        r"optim.epochs: 2 there, 1 now\): epochs are added to a run, and none is taken away",
    ),
    "schedule": (with_optim(TINY, schedule="constant"), r"optim.schedule: 'cosine' there"),
    "more epochs": (
        with_optim(TINY, epochs=4),
        r"'cosine' was over 2 epochs, and over 4 it is another one; set optim.schedule_epochs to 2 to go on",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_added_is_one_line_before_anything_is_written(workdir, name):
    config, message = REFUSED[name]
    before = content(workdir), (workdir / "config.json").read_bytes()
    with pytest.raises(UserError, match=message) as error:
        train(config, workdir=workdir)
    assert "\n" not in str(error.value)
    assert "choose another work directory" in str(error.value)
    assert (content(workdir), (workdir / "config.json").read_bytes()) == before
    assert not (workdir / "cohorts").exists()


def test_mesh_and_new_functions_are_checked_before_anything_is_written(workdir):
    before = content(workdir)
    with pytest.raises(UserError, match="mesh"):
        train(dataclasses.replace(TINY, seeds=3, mesh=MeshConfig(member=64)), workdir=workdir)
    assert content(workdir) == before


@pytest.mark.slow
def test_more_epochs_with_a_constant_schedule_are_those_of_a_longer_run(tmp_path):
    """To the bit, the run and its cohort."""
    train(with_seeds(CONSTANT, 1), workdir=tmp_path / "run")
    train(CONSTANT, workdir=tmp_path / "run")
    longer = with_evaluate(with_optim(CONSTANT, epochs=4), epochs=(0, 1, 2))
    train(with_seeds(longer, 1), workdir=tmp_path / "longer")
    run, whole = (train(longer, workdir=tmp_path / name) for name in ("run", "longer"))
    assert_same(numbers(run), numbers(whole))
    for one, other in zip(jax.tree.leaves(run.state()), jax.tree.leaves(whole.state()), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(run.state().step) == 16
    assert run.epochs == (0, 1, 2, 4)
    assert run.has_ended


def test_more_epochs_of_another_schedule_go_on_with_its_last_rate(workdir):
    run = train(with_optim(TINY, epochs=3, schedule_epochs=2), workdir=workdir)
    rates = {p.epoch: p.value for p in run.metrics() if p.metric == "lr" and p.member.endswith("seed=0")}
    assert rates[3] == rates[2] > 0
    assert rates[1] > rates[2]


@pytest.mark.slow
def test_unfinished_run_that_is_longer_has_not_ended(workdir, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ncjax.features.train_parts.fit", killed)
    with pytest.raises(KeyboardInterrupt):
        train(with_optim(TINY, epochs=3, schedule_epochs=2), workdir=workdir)
    run = Run.open(workdir)
    assert not run.has_ended
    found = evaluate_run(run, bootstrap=0)
    assert any("up to epoch 2 of 3" in note for note in found.notes)


def test_unfinished_run_goes_on_first_and_callbacks_have_the_members_that_are_trained(tmp_path):
    def stop(epoch, run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, workdir=tmp_path / "run", callbacks=[stop])
    seen = []

    def watch(epoch, run):
        seen.append((epoch, tuple(member.seed for member in run.members), run.state().members.nan_step.shape[0]))
        return {"mine": [member.seed for member in run.members]}

    run = train(with_seeds(TINY, 5), workdir=tmp_path / "run", callbacks=[watch])
    assert seen == [(1, (0, 1), 2), (2, (0, 1), 2), (1, (2, 3, 4), 3), (2, (2, 3, 4), 3)]
    mine = [(p.member[-1], p.value) for p in run.metrics() if p.metric == "mine" and p.epoch == 2]
    assert mine == [(str(seed), seed) for seed in range(5)]


@pytest.mark.slow
def test_evaluation_while_a_cohort_is_trained_has_what_is_there(workdir):
    found = []

    def look(epoch, run):
        if epoch == 1:
            whole = Run.open(workdir)
            assert whole.features(2).names == tuple(member.name for member in whole.members[:2])
            assert whole.features(1).names == tuple(member.name for member in whole.members)
            found.append((evaluate_run(workdir, bootstrap=0), whole.has_ended))

    train(with_seeds(TINY, 4), workdir=workdir, callbacks=[look])
    ((evaluation, has_ended),) = found
    assert not has_ended
    note = "Training of the 2 members of cohort 1 has not ended: evaluated are the features kept so far, up to epoch 1"
    assert evaluation.notes[0] == f"{note} of 2."
    trained = [(row.epoch, row.member) for row in evaluation.rows if row.kind == "trained" and row.layer == "features"]
    assert trained == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]
    again = evaluate_run(workdir, bootstrap=0)
    written = Evaluation.from_json((workdir / "results" / "evaluation.json").read_bytes())
    assert [row.name for row in written.rows] == [row.name for row in again.rows]
    assert not any("has not ended" in note for note in written.notes)
