# SPDX-License-Identifier: Apache-2.0
"""Work directories whose features are damaged or missing, whose JSON was edited, or whose training has not ended."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.evaluation.store import write_evaluation
from ncjax.features.run import Run
from ncjax.features.store import load_features, missing_features
from ncjax.pipeline import evaluate_run, export_features, train
from ncjax.report import write_report
from ncjax.results import Evaluation, Row

TINY = Config(
    labels=("mod:5", "fine"),
    data=DataConfig(train_examples=160, test_examples=60),
    model=ModelConfig(name="mlp", width=4),
    optim=OptimConfig(epochs=3, batch=80, lr=(0.1,)),
    evaluate=EvaluateConfig(epochs=(0, 1), variants=("raw",), restarts=1),
    checkpoint_epochs=1,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Features and checkpoints of epochs 1 and 3, features of epoch 0."""
    return train(TINY, workdir=tmp_path_factory.mktemp("damage") / "run")


@pytest.fixture
def workdir(finished, tmp_path):
    shutil.copytree(finished.workdir, tmp_path / "run")
    return tmp_path / "run"


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_bit(folder):
    content = bytearray(largest(folder).read_bytes())
    content[len(content) // 2] ^= 1
    largest(folder).write_bytes(content)


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def of_another_epoch(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / ("1" if folder.name != "1" else "3"), folder)


DAMAGE = {
    "bit": flip_a_bit,
    "half": lambda folder: largest(folder).write_bytes(largest(folder).read_bytes()[:-9]),
    "no largest file": lambda folder: largest(folder).unlink(),
    "no index": lambda folder: (folder / "arrays.json").unlink(),
    "edited index": lambda folder: (folder / "arrays.json").write_text("{}"),
    "edited checksums": lambda folder: (folder / "sha256.json").write_text("[]"),
    "empty": emptied,
    "gone": shutil.rmtree,
    "of another epoch": of_another_epoch,
    "another file in it": lambda folder: [emptied(folder), (folder / "a.txt").write_text("x")],
}


def arrays(features):
    return {
        (name, part): np.asarray(array)
        for name, split in (("train", features.train), ("test", features.test))
        for part, array in (("features", split.layers["features"]), ("logits", split.logits), ("labels", split.labels))
    }


def assert_same(ours, theirs):
    assert ours.names == theirs.names
    assert ours.layers == theirs.layers
    for key, array in arrays(theirs).items():
        np.testing.assert_allclose(arrays(ours)[key], array, atol=1e-5, err_msg=str(key))


@pytest.mark.parametrize("epoch", [0, 1, 3])
@pytest.mark.parametrize("way", DAMAGE)
def test_damage_is_noticed_and_not_read(workdir, way, epoch):
    assert not missing_features(workdir, epoch)
    DAMAGE[way](workdir / "features" / str(epoch))
    assert missing_features(workdir, epoch)
    with pytest.raises(
        UserError, match=f"features in .*/{epoch} cannot be read|no features of epoch {epoch} in "
    ) as error:
        load_features(workdir, epoch)
    assert "delete that" not in str(error.value)
    assert "\n" not in str(error.value)


SLOW = [pytest.param(way, marks=pytest.mark.slow) for way in DAMAGE if way not in ("bit", "gone")]


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("way", ["bit", "gone", *SLOW])
def test_the_same_command_makes_features_again(finished, workdir, capsys, way, epoch):
    DAMAGE[way](workdir / "features" / str(epoch))
    assert missing_features(workdir, epoch)
    run = train(TINY, workdir=workdir)
    assert f"features of epoch {epoch} were made again from its checkpoint" in capsys.readouterr().err
    assert not missing_features(workdir, epoch)
    assert_same(run.features(epoch), finished.features(epoch))


def test_features_that_are_whole_are_left_alone(workdir, capsys):
    before = {path: path.stat().st_mtime_ns for path in (workdir / "features").rglob("*")}
    train(TINY, workdir=workdir)
    assert {path: path.stat().st_mtime_ns for path in (workdir / "features").rglob("*")} == before
    assert "warning" not in capsys.readouterr().err


def test_features_without_a_checkpoint_are_named_and_stay(workdir, capsys):
    flip_a_bit(workdir / "features" / "1")
    shutil.rmtree(workdir / "checkpoints" / "2")
    damaged = largest(workdir / "features" / "1").read_bytes()
    train(TINY, workdir=workdir)
    message = capsys.readouterr().err
    assert "features of epoch 1 cannot be read" in message
    assert "nor be made again" in message
    assert "holds no checkpoint of step 2" in message
    assert largest(workdir / "features" / "1").read_bytes() == damaged
    with pytest.raises(UserError, match=r"cannot be read .*they cannot be made again: .*no checkpoint of step 2"):
        export_features(workdir, (1,))


def kinds(found):
    return [(row.kind, row.epoch, row.name) for row in found.rows]


@pytest.fixture(scope="module")
def sound(finished):
    return evaluate_run(finished, bootstrap=0, controls=False)


@pytest.mark.parametrize(
    "way", ["bit", *(pytest.param(way, marks=pytest.mark.slow) for way in ("gone", "of another epoch"))]
)
def test_an_evaluation_makes_features_again_says_so_and_writes_none(sound, workdir, way):
    for epoch in ("1", "3"):
        DAMAGE[way](workdir / "features" / epoch)
        if way == "of another epoch":
            break
    before = {path: path.read_bytes() for path in (workdir / "features").rglob("*") if path.is_file()}
    found = evaluate_run(workdir, bootstrap=0, controls=False)
    assert kinds(found) == kinds(sound)
    for ours, theirs in zip(found.rows, sound.rows, strict=True):
        assert ours.value("clp", view="raw") == pytest.approx(theirs.value("clp", view="raw"), abs=0.02)
    assert any(note.startswith("Features of epoch 1 were made again") for note in found.notes)
    assert {path: path.read_bytes() for path in (workdir / "features").rglob("*") if path.is_file()} == before


def test_an_evaluation_says_which_epochs_are_missing(sound, workdir):
    shutil.rmtree(workdir / "features" / "1")
    shutil.rmtree(workdir / "checkpoints" / "2")
    flip_a_bit(workdir / "features" / "3")
    shutil.rmtree(workdir / "checkpoints" / "6")
    found = evaluate_run(workdir, bootstrap=0, controls=False)
    assert kinds(found) == [row for row in kinds(sound) if row[1] == 0]
    written = Evaluation.from_json((workdir / "results" / "evaluation.json").read_text())
    for notes in (found.notes, written.notes):
        missing = [note for note in notes if "is missing" in note]
        assert [note[:18] for note in missing] == ["Epoch 1 is missing", "Epoch 3 is missing"]
        assert "no checkpoint of step 2" in missing[0]
        assert "is not what was written" in missing[1]
    shutil.rmtree(workdir / "features")
    (workdir / "members.json").write_bytes(
        (workdir / "members.json").read_bytes().replace(b'"from_memory": false', b'"from_memory": true')
    )
    with pytest.raises(UserError, match=r"^Epoch 0 is missing: no features of epoch 0 .*arrays from memory"):
        evaluate_run(workdir, bootstrap=0, controls=False)


def test_members_that_are_missing_are_not_dropped_without_a_word(workdir):
    content = json.loads((workdir / "members.json").read_text())
    del content["members"]["fine/lr=0.1/wd=5e-4/seed=0"]
    (workdir / "members.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"they are of 2 members, but members\.json names 1"):
        load_features(workdir, 3)


@pytest.mark.slow
def test_a_run_that_has_not_ended_is_evaluated_as_far_as_it_is(sound, workdir):
    """As while epoch 3 is being trained."""
    (workdir / "results" / "training.json").unlink()
    shutil.rmtree(workdir / "features" / "3")
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(lines[:2]))
    found = evaluate_run(workdir, bootstrap=0, controls=False)
    assert kinds(found) == [row for row in kinds(sound) if row[1] != 3]
    assert found.notes[0] == "Training has not ended: evaluated are the features kept so far, up to epoch 1 of 3."
    assert not any("is missing" in note for note in found.notes)
    assert write_report(workdir).is_file()
    shutil.rmtree(workdir / "features")
    with pytest.raises(UserError, match="holds no features; run: ncjax train CONFIG --workdir"):
        evaluate_run(workdir)


# ------------------------------------------------------------------ JSON that was edited, or is something else

FILES = ("config.json", "members.json", "results/training.json", "results/evaluation.json", "metrics.jsonl")
TEXTS = {
    "empty": b"", "null": b"null", "list": b"[]", "number": b"3", "text": b'"x"', "object": b"{}", "open": b'{"a": ',
    "deep": b"[" * 100_000, "not UTF-8": b"\xff\xfe{}", "page": b"<html>", "NaN": b"NaN", "other": b'{"epoch": 3}',
    "long number": b"9" * 5000, "list of objects": b'[{"config": {}}]',
}  # fmt: skip
READERS = {
    "config.json": (Run.open, lambda path: train(TINY, workdir=path), evaluate_run, export_features),
    "members.json": (Run.open, evaluate_run, export_features),
    "results/training.json": (lambda path: Run.open(path).training, evaluate_run),
    "results/evaluation.json": (write_report,),
    "metrics.jsonl": (lambda path: Run.open(path).metrics(), write_report),
}


@pytest.fixture(scope="module")
def evaluated(finished, sound):
    """A copy for all texts: what they replace is put back."""
    return finished.workdir


def one_line(error: UserError, path: Path) -> None:
    assert "\n" not in str(error)
    assert path.name in str(error)
    assert "delete" not in str(error)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", FILES)
def test_foreign_json_is_one_line_that_names_the_file(evaluated, name, text):
    path = evaluated / name
    before = path.read_bytes()
    path.write_bytes(TEXTS[text] + (b"\n" + before if name == "metrics.jsonl" else b""))
    there = path.read_bytes()
    try:
        for read in READERS[name]:
            if name == "metrics.jsonl" and text == "empty":
                continue
            with pytest.raises(UserError) as error:
                read(evaluated)
            one_line(error.value, path)
            assert path.read_bytes() == there
    finally:
        path.write_bytes(before)


EDITS = [
    ("config.json", ("config", "seeds"), 0),
    ("config.json", ("config", "optim", "lr"), "0.1"),
    ("config.json", ("config", "optim", "epochs"), 2.5),
    ("config.json", ("config", "mine"), 1),
    ("config.json", ("run",), 3),
    ("members.json", ("members",), []),
    ("members.json", ("class_names",), "0123456789"),
    ("members.json", ("members", "mod:5/lr=0.1/wd=5e-4/seed=0", "lr"), None),
    ("members.json", ("members", "mod:5/lr=0.1/wd=5e-4/seed=0", "label_map"), "mod:5"),
    ("results/training.json", ("train_secs",), "long"),
    ("results/training.json", ("failures",), "none"),
    ("results/evaluation.json", ("schema",), 9),
    ("results/evaluation.json", ("rows",), {}),
    ("results/evaluation.json", ("rows",), []),
    ("results/evaluation.json", ("metrics", "nc1"), 3),
    ("results/evaluation.json", ("provenance", "class_names"), 10),
]


@pytest.mark.parametrize(("name", "field", "value"), EDITS, ids=lambda part: str(part).replace("/", "_"))
def test_an_edited_field_is_one_line_that_names_the_file(evaluated, name, field, value):
    path = evaluated / name
    before = path.read_bytes()
    content = json.loads(before)
    *outer, last = field
    inner = content
    for key in outer:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(content))
    try:
        for read in READERS[name]:
            with pytest.raises(UserError) as error:
                read(evaluated)
            one_line(error.value, path)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("text", TEXTS)
def test_results_that_cannot_be_read_are_kept_under_another_name(tmp_path, text):
    path = tmp_path / "results" / "evaluation.json"
    path.parent.mkdir()
    path.write_bytes(TEXTS[text])
    found = Evaluation(rows=(Row(name="a", kind="features"),))
    write_evaluation(tmp_path, found)
    assert Evaluation.from_json(path.read_text()) == found
    assert path.with_name("evaluation.unreadable.json").read_bytes() == TEXTS[text]


def test_damaged_members_are_written_again_by_the_trainer(workdir):
    before = (workdir / "members.json").read_bytes()
    (workdir / "members.json").write_bytes(b'{"members": {}}')
    train(TINY, workdir=workdir)
    assert (workdir / "members.json").read_bytes() == before
