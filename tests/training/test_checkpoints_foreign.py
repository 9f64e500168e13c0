# SPDX-License-Identifier: Apache-2.0
"""Folders that are no checkpoint of this run at this step: empty, half deleted, renamed, of another run."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.storage.atomic import write_json
from ncjax.storage.checksums import CHECKSUMS
from ncjax.training import checkpoints as checkpoint
from ncjax.training.state import MemberState, StepMetrics, TrainState


def state_at(step, scale=1.0):
    zeros = StepMetrics(jnp.zeros(3), jnp.zeros(3))
    weights = {"linear": {"kernel": scale * (step + jnp.arange(900.0).reshape(3, 300))}}
    return TrainState(MemberState(weights, {}, weights, jnp.full(3, -1, jnp.int32), zeros), jnp.int32(step))


LIKE = state_at(0)


def made(workdir, run, *steps, scale=1.0):
    write_json(workdir / "config.json", {"config": {}, "run": run})
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        for step in steps:
            checkpoint.save(checkpoints, state_at(step, scale))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run `one` has checkpoints 3 and 5, run `two` 5 and 7, and run `old` was made before runs had names."""
    root = tmp_path_factory.mktemp("runs")
    made(root / "one", "1111", 3, 5)
    made(root / "two", "2222", 5, 7, scale=-1.0)
    made(root / "old", "", 3, 5)
    for file in (root / "old").glob("checkpoints/*/sha256.json"):
        file.write_text(json.dumps(json.loads(file.read_text())["files"]))
    return root


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def emptied(folder):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def without_some(keep):
    def half(folder):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if not keep(path.name):
                path.unlink()

    return half


def foreign_file(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"x" * 100)


def newest(step, change):
    """A change of a folder that is, or becomes, the newest checkpoint."""

    def changed(workdir):
        folder = workdir / "checkpoints" / str(step)
        folder.mkdir(exist_ok=True)
        change(folder)

    return changed


def renamed(old, new):
    return lambda workdir: (workdir / "checkpoints" / str(old)).rename(workdir / "checkpoints" / str(new))


def copied(runs, step, new):
    return lambda workdir: shutil.copytree(runs / "two" / "checkpoints" / str(step), workdir / "checkpoints" / str(new))


NEITHER = {
    "empty": newest(5, emptied),
    "another empty one": newest(99, emptied),
    "an empty content": newest(99, lambda folder: (folder / "default").mkdir()),
    "no content": newest(5, lambda folder: shutil.rmtree(folder / "default")),
    "no content, no checksums": newest(5, without_some(lambda name: name == "_CHECKPOINT_METADATA")),
    "no arrays": newest(5, lambda folder: shutil.rmtree(folder / "default" / "d")),
    "no arrays, no checksums": newest(5, without_some(lambda name: name.startswith(("_", "commit")))),
    "no manifest, no checksums": newest(5, without_some(lambda name: name not in ("manifest.ocdbt", CHECKSUMS))),
    "checksums alone": newest(5, without_some(lambda name: name == CHECKSUMS)),
    "something else": newest(5, foreign_file),
    "a file in place of the content": newest(99, lambda folder: (folder / "default").write_text("")),
    "renamed": renamed(5, 8),
}


@pytest.mark.parametrize("way", NEITHER)
@pytest.mark.parametrize("run", ["one", "old"])
def test_the_older_whole_one_is_used_and_nothing_is_lost(runs, tmp_path, capsys, run, way):
    workdir = tmp_path / "run"
    shutil.copytree(runs / run, workdir)
    NEITHER[way](workdir)
    before, names = files(workdir), sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    whole = 5 if names[-1] == 99 else 3
    kernel = checkpoint.read_state(workdir, LIKE).members.params["linear"]["kernel"]
    np.testing.assert_array_equal(kernel, state_at(whole).members.params["linear"]["kernel"])
    assert files(workdir) == before
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        assert int(checkpoint.restore_latest(checkpoints, LIKE).step) == whole
        assert (workdir / "damaged" / str(names[-1])).is_dir()
        assert {name.replace("damaged", "checkpoints") for name in files(workdir)} == before
        checkpoint.save(checkpoints, state_at(9))
    assert int(checkpoint.read_state(workdir, LIKE).step) == 9
    message = capsys.readouterr().err
    assert f"checkpoint {names[-1]} is damaged (" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("step", "new", "reason"),
    [
        (7, 7, "it is of run 2222, not of run 1111"),
        (5, 8, "it is of run 2222, not of run 1111"),
        (7, 6, "it is of run 2222, not of run 1111"),
        (7, 100, "it is of run 2222, not of run 1111"),
    ],
)
def test_a_checkpoint_of_another_run_is_passed_over_and_kept(runs, tmp_path, capsys, step, new, reason):
    workdir = tmp_path / "run"
    shutil.copytree(runs / "one", workdir)
    copied(runs, step, new)(workdir)
    assert int(checkpoint.read_state(workdir, LIKE).step) == 5
    with pytest.raises(UserError, match=reason):
        checkpoint.read_state(workdir, LIKE, new)
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        found = checkpoint.restore_latest(checkpoints, LIKE)
    np.testing.assert_array_equal(
        found.members.params["linear"]["kernel"], state_at(5).members.params["linear"]["kernel"]
    )
    assert reason in capsys.readouterr().err
    assert files(workdir / "damaged" / str(new)) == files(runs / "two" / "checkpoints" / str(step))


def test_a_checkpoint_of_a_named_run_does_not_fit_one_without_a_name(runs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(runs / "old", workdir)
    assert int(checkpoint.read_state(workdir, LIKE).step) == 5
    copied(runs, 7, 7)(workdir)
    assert int(checkpoint.read_state(workdir, LIKE).step) == 5


@pytest.mark.parametrize("way", ["empty", "no content", "checksums alone", "renamed", "something else"])
def test_the_only_one_is_never_to_be_deleted(runs, tmp_path, way):
    """Nor is training started from the beginning over it."""
    workdir = tmp_path / "run"
    shutil.copytree(runs / "one", workdir)
    shutil.rmtree(workdir / "checkpoints" / "3")
    NEITHER[way](workdir)
    before = files(workdir)
    (newest_one,) = (path.name for path in (workdir / "checkpoints").iterdir())
    with pytest.raises(
        UserError, match=f"checkpoints/{newest_one} cannot be read .* nor is there an older one"
    ) as reading:
        checkpoint.read_state(workdir, LIKE)
    with (
        checkpoint.open_checkpoints(workdir) as checkpoints,
        pytest.raises(
            UserError, match=r"nor is there an older one .*; start again in another work directory$"
        ) as training,
    ):
        checkpoint.restore_latest(checkpoints, LIKE)
    for error in (reading, training):
        assert "delete it" not in str(error.value)
        assert "remove" not in str(error.value)
        assert "\n" not in str(error.value)
    assert files(workdir) == before
