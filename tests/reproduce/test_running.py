# SPDX-License-Identifier: Apache-2.0
"""Experiments that are really run, at the size of a try: finished, moved, cut off and gone on with."""

import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from ncjax.config import ModelConfig
from ncjax.errors import Stopped, UserError
from ncjax.features.feature_set import FeatureSet
from ncjax.features.run import Run
from ncjax.report import run_summary
from ncjax.reproduce import Experiment, Piece, all_experiments, find_experiments, running
from ncjax.reproduce.experiments import changed
from ncjax.reproduce.finished import Task, read_finished
from ncjax.reproduce.plan import unfinished
from ncjax.results import Evaluation
from ncjax.storage.npy import load_npz
from tests.runs import ended, start

(DIGITS,) = find_experiments(["digits"])
(WHOLE,) = DIGITS.at("try")
SMALL = changed(WHOLE.config, model=ModelConfig(name="mlp", width=8), labels=("mod:5",), seeds=2)
SMALL = changed(SMALL, evaluate_epochs=(), evaluate_variants=("normalised",))
PIECE = Piece(name="all", config=SMALL, minutes=2.0)
TOY = [Experiment(name="digits", question="", needs="", pieces={"cores": (PIECE,)})]


def task(root, scale="cores"):
    return Task(root, "digits", scale, PIECE if scale == "cores" else WHOLE)


def evaluation(root, scale="cores"):
    path = task(root, scale).results / "results" / "evaluation.json"
    return Evaluation.from_json(path.read_bytes())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two seeds on one label map, two epochs."""
    root, lines = tmp_path_factory.mktemp("reproduce"), []
    running.run_experiments(TOY, "cores", root, "ncjax reproduce digits", say=lines.append)
    return root, lines


def test_it_says_what_it_does_and_where_the_results_are(finished):
    root, lines = finished
    assert lines == ["digits, cores: all (0 of 1 done, about 2 min)", f"results: {task(root).results}"]
    assert "trained on coarse labels (mod:5) | 2 | 2 |" in run_summary(task(root).results)


def test_every_member_has_results_recovered_labels_and_features(finished):
    root, _ = finished
    found = read_finished(task(root))
    assert [one.member.split("/")[0] for one in found.values()] == ["mod:5", "mod:5"]
    for folder in found:
        assert {path.name for path in folder.iterdir()} == {
            "member.json", "evaluation.json", "sha256.json", "metrics.jsonl", "recovered.npz", "features.npz",
        }  # fmt: skip


def test_recovered_labels_and_features_are_what_was_measured(finished):
    root, _ = finished
    rows, run = {row.name: row for row in evaluation(root).rows}, Run.open(task(root).workdir)
    kept = run.features()
    for folder, one in read_finished(task(root)).items():
        recovered, place = load_npz(folder / "recovered.npz"), kept.names.index(one.member)
        assert set(recovered) == {"normalised_train", "normalised_test"}
        for split, labels in (("train", kept.train.labels), ("test", kept.test.labels)):
            share = rows[one.member].value("cluster_accuracy", split=split, view="normalised")
            assert (recovered[f"normalised_{split}"] == labels).mean() == pytest.approx(share, abs=1e-6)
        assert load_npz(folder / "features.npz")["train_features"].dtype == np.float16
        opened = FeatureSet.open(folder / "features.npz")  # as `ncjax evaluate FILE` does
        for ours, theirs in ((opened.train, kept.train), (opened.test, kept.test)):
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            np.testing.assert_allclose(
                ours.layers["features"][0], theirs.layers["features"][place], rtol=1e-3, atol=1e-6
            )
        np.testing.assert_array_equal(opened.classifier.weights[0], kept.classifier.weights[place])


def test_a_training_that_is_told_to_stop_goes_on_in_the_next_call(finished, tmp_path, monkeypatch):
    root, _ = finished
    train = running.train

    def stopping(config, **options):
        def stop(epoch, run):
            if epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        return train(config, callbacks=[stop], **options)

    monkeypatch.setattr(running, "train", stopping)
    with pytest.raises(Stopped):
        running.run_experiments(TOY, "cores", tmp_path, "ncjax reproduce digits", say=lambda line: None)
    monkeypatch.undo()
    assert not task(tmp_path).members.exists()
    (left,) = unfinished([task(tmp_path)], "cpu")
    assert left.minutes == 1.0  # of two
    running.run_experiments(TOY, "cores", tmp_path, "ncjax reproduce digits", say=lambda line: None)
    assert evaluation(tmp_path).rows == evaluation(root).rows


def test_members_that_came_from_another_machine_are_not_trained_again(finished, tmp_path, monkeypatch):
    root, _ = finished
    shutil.copytree(root / "members", tmp_path / "members")
    monkeypatch.setattr(running, "train", None)
    running.run_experiments(TOY, "cores", tmp_path, "ncjax reproduce", say=lambda line: None)
    assert not (tmp_path / "work").exists()


def test_results_of_members_that_came_are_collected_too(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root / "members", tmp_path / "members")
    running.run_experiments(TOY, "cores", tmp_path, "ncjax reproduce", say=lambda line: None)
    assert evaluation(tmp_path) == evaluation(root)


def test_the_most_valuable_piece_that_fits_is_run_and_the_others_are_named(tmp_path, monkeypatch):
    ran, clock = [], iter(range(0, 10**6, 100))

    def left(tasks, device):
        return tuple(cost for cost in unfinished(tasks, device) if cost.task.piece.name not in ran)

    monkeypatch.setattr(running, "run_task", lambda task, *_: ran.append(task.piece.name))
    monkeypatch.setattr(running, "unfinished", left)
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(Stopped, match="9 of 12 pieces are left for another call: fine_1, "):
        running.run_experiments(find_experiments(["coarse_cifar10"]), "gpu", tmp_path, "", minutes=10.0, say=print)
    assert ran == ["coarse_0", "fine_0", "coarse_1"]


@pytest.mark.parametrize("minutes", [1.0, 4.3, 5.0])
def test_every_call_begins_with_the_most_valuable_piece(tmp_path, monkeypatch, minutes):
    """Also where it takes as long as the whole call, of which the start has taken a little."""
    ran, now = [], [0.0]

    def run(task, *_):
        ran.append(task.piece.name)
        now[0] += 60.0 * minutes
        raise Stopped("cut off")

    def clock():
        now[0] += 0.01
        return now[0]

    monkeypatch.setattr(running, "run_task", run)
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=clock))
    with pytest.raises(Stopped, match="cut off"):
        running.run_experiments(find_experiments(["coarse_cifar10"]), "gpu", tmp_path, "", minutes=minutes, say=print)
    assert ran == ["coarse_0"]


def test_the_limit_sends_sigterm_and_nothing_after_its_end():
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with running._stopped_after(0.001):
            time.sleep(0.3)
        with running._stopped_after(0.003):
            pass
        time.sleep(0.3)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [1]


def test_data_below_one_folder(tmp_path):
    coarse = all_experiments()["coarse_cifar10"].at("cores")[0].config
    fashion = all_experiments()["fashion"].at("cores")[0].config
    assert running.with_data(coarse, None) == coarse
    assert running.with_data(coarse, tmp_path).data.path == str(tmp_path)
    assert running.with_data(fashion, tmp_path).data.path == str(tmp_path)
    (tmp_path / "fashion-mnist").mkdir()
    assert running.with_data(fashion, tmp_path).data.path == str(tmp_path / "fashion-mnist")
    assert running.with_data(SMALL, tmp_path) == SMALL


def test_missing_data_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="no cifar10 files in"):
        running.run_experiments(
            find_experiments(["coarse_cifar10"]), "try", tmp_path / "out", "", data=tmp_path, say=lambda line: None
        )
    assert not (tmp_path / "out").exists()


LONGER = """
import dataclasses
from ncjax.config import ModelConfig
from ncjax.reproduce import experiment
from ncjax.reproduce.experiments import changed
reduced = experiment.reduced
def longer(piece):
    one = reduced(piece)
    config = changed(one.config, labels=("mod:5",), model=ModelConfig(name="mlp", width=8), optim_epochs=40)
    config = changed(config, evaluate_epochs=(), evaluate_variants=("normalised",), chunk_steps=18)
    config = changed(config, checkpoint_minutes=1e-6)
    return dataclasses.replace(one, config=config)
experiment.reduced = longer
"""
STEPS = 18 * 40


def go(root, *options):
    """`ncjax reproduce digits --scale try` for 40 epochs, in a process of its own."""
    return start(["reproduce", "digits", "--scale", "try", "--workdir", root, *options], before=LONGER)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    ((code, err),) = ended([go(root)], timeout=900)
    assert code == 0, err
    return root


def is_under_way(root):
    steps = (path.name for path in (task(root, "try").workdir / "checkpoints").glob("*"))
    return any(name.isdigit() and int(name) > STEPS / 20 for name in steps)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("how", ["killed", "told", "limit"])
def test_a_process_that_is_cut_off_goes_on_and_ends_like_an_undisturbed_one(undisturbed, tmp_path, how):
    """By SIGKILL, by SIGTERM, by its own limit of three seconds: bit for bit the same results, labels and features."""
    process = go(tmp_path, *(("--minutes", 0.05) if how == "limit" else ()))
    while how != "limit" and process.poll() is None and not is_under_way(tmp_path):
        time.sleep(0.005)
    if how != "limit":
        process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    ((code, err),) = ended([process], timeout=900)
    assert code == (-signal.SIGKILL if how == "killed" else 75), err
    assert not task(tmp_path, "try").members.exists()
    ((code, err),) = ended([go(tmp_path, *(("--minutes", 60) if how == "limit" else ()))], timeout=900)
    assert code == 0, err
    assert evaluation(tmp_path, "try").rows == evaluation(undisturbed, "try").rows
    pairs = list(zip(folders_of(undisturbed), folders_of(tmp_path), strict=True))
    assert len(pairs) == 2
    for pair in pairs:
        for file in ("features.npz", "recovered.npz"):
            ours, theirs = (load_npz(folder / file) for folder in pair)
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def folders_of(root):
    """The folders of the members, not those of the controls."""
    folders = (root / "members" / "digits" / "try" / "all").glob("*/features.npz")
    return sorted(folder.parent for folder in folders)
