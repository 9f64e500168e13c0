# SPDX-License-Identifier: Apache-2.0
"""`read_state` reads a run that a trainer is writing, and leaves every file as it is."""

import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncjax.errors import UserError
from ncjax.training import checkpoints as checkpoint
from ncjax.training.state import MemberState, StepMetrics, TrainState


def state_at(step, members=3):
    zeros = StepMetrics(jnp.zeros(members), jnp.zeros(members))
    weights = {"linear": {"kernel": step + jnp.arange(members * 300.0).reshape(members, 300)}}
    nan_step = jnp.full(members, -1, jnp.int32)
    return TrainState(MemberState(weights, {}, weights, nan_step, zeros), jnp.int32(step))


LIKE = state_at(0)


@pytest.fixture
def workdir(tmp_path):
    """Checkpoints at 3 and 5."""
    with checkpoint.open_checkpoints(tmp_path / "run") as checkpoints:
        for step in (3, 5):
            checkpoint.save(checkpoints, state_at(step))
    return tmp_path / "run"


def everything_under(folder):
    """Content and time of every file and folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


def assert_is(state, step):
    jax.tree.map(np.testing.assert_array_equal, state, state_at(step))


def damage(workdir, step):
    file = next(path for path in (workdir / "checkpoints" / str(step) / "default").rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes() + b"x")


def test_reading_changes_no_file(workdir):
    (workdir / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir()
    (workdir / "checkpoints" / "7.orbax-checkpoint-tmp" / "half").write_bytes(b"1")
    before = everything_under(workdir)
    assert_is(checkpoint.read_state(workdir, LIKE), 5)
    assert_is(checkpoint.read_state(workdir, LIKE, 3), 3)
    assert everything_under(workdir) == before


def test_damaged_checkpoints_are_passed_over_and_stay(workdir):
    damage(workdir, 5)
    before = everything_under(workdir)
    assert_is(checkpoint.read_state(workdir, LIKE), 3)
    assert everything_under(workdir) == before
    damage(workdir, 3)
    before = everything_under(workdir)
    with pytest.raises(
        UserError, match=r"checkpoints/5 cannot be read \(default/.* is not what was written\), nor is "
    ):
        checkpoint.read_state(workdir, LIKE)
    with pytest.raises(UserError, match=r"checkpoints/3 cannot be read"):
        checkpoint.read_state(workdir, LIKE, 3)
    assert everything_under(workdir) == before


def test_a_checkpoint_that_is_not_there_is_named_and_nothing_is_made(workdir, tmp_path):
    with pytest.raises(UserError, match=r"holds no checkpoint of step 4 \(there are: 3, 5\)"):
        checkpoint.read_state(workdir, LIKE, 4)
    bare = tmp_path / "bare"
    for _ in range(2):
        with pytest.raises(UserError, match=f"^{bare} holds no checkpoint; run: ncjax train CONFIG --workdir {bare}$"):
            checkpoint.read_state(bare, LIKE)
        shutil.rmtree(bare, ignore_errors=True)
        (bare / "checkpoints").mkdir(parents=True)
    assert [path.name for path in bare.rglob("*")] == ["checkpoints"]


def test_another_padded_count_is_read(workdir):
    found = checkpoint.read_state(workdir, state_at(0, members=4))
    kernel = found.members.params["linear"]["kernel"]
    np.testing.assert_array_equal(kernel[:3], state_at(5).members.params["linear"]["kernel"])
    np.testing.assert_array_equal(kernel[3], kernel[0])


def test_a_reader_during_a_save_leaves_the_draft_alone_and_the_save_ends(workdir, monkeypatch):
    """The save stands still in its last moment, with its temporary folder on disk, until the reader is done."""
    arrived, go_on = threading.Event(), threading.Event()
    finish = checkpoint._write_checksums

    def slow(*arguments):
        arrived.set()
        assert go_on.wait(60)
        finish(*arguments)

    monkeypatch.setattr(checkpoint, "_write_checksums", slow)
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        checkpoint.save(checkpoints, state_at(7))
        assert arrived.wait(60)
        (draft,) = (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")
        before = everything_under(draft)
        assert_is(checkpoint.read_state(workdir, LIKE), 5)
        assert everything_under(draft) == before
        go_on.set()
        checkpoint.finish(checkpoints)
    assert not draft.exists()
    assert_is(checkpoint.read_state(workdir, LIKE), 7)
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        assert_is(checkpoint.restore_latest(checkpoints, LIKE), 7)


def test_the_trainers_door_does_clean_up(workdir):
    """So the test above can fail."""
    draft = workdir / "checkpoints" / "7.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints" / "5", draft)
    checkpoint.read_state(workdir, LIKE)
    assert draft.exists()
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        assert_is(checkpoint.restore_latest(checkpoints, LIKE), 5)
        checkpoint.save(checkpoints, state_at(9))  # which waits until old drafts are removed
    assert not draft.exists()


def test_a_checkpoint_that_the_trainer_replaces_meanwhile_is_not_an_error(workdir, monkeypatch):
    """Between the listing and the reading the trainer writes 7 and deletes 3 and 5."""
    read, calls = checkpoint._read, []
    with checkpoint.open_checkpoints(workdir.parent / "later") as checkpoints:
        checkpoint.save(checkpoints, state_at(7))

    def slow(checkpoints, step, like):
        calls.append(step)
        if len(calls) == 1:
            os.rename(workdir.parent / "later" / "checkpoints" / "7", workdir / "checkpoints" / "7")
            for old in ("3", "5"):
                shutil.rmtree(workdir / "checkpoints" / old)
        return read(checkpoints, step, like)

    monkeypatch.setattr(checkpoint, "_read", slow)
    assert_is(checkpoint.read_state(workdir, LIKE), 7)
    assert calls == [5, 7]


def test_names_in_files_are_those_of_ncjax_0_1(workdir):
    with ocp.StandardCheckpointer() as checkpointer:
        content = checkpointer.restore((workdir / "checkpoints" / "5" / "default").absolute())
    assert set(content) == {"params", "optimiser", "step", "nan_step", "seen"} | (set(content) & {"batch_stats"})
    assert set(content["seen"]) == {"loss", "accuracy"}
    assert int(content["step"]) == 5


NAMES = ("run[1]", "[a-z]", "*", "what?", "a{b}", "50% #1", "$HOME", "~", "né", "a'b\"c", "a\nb")


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_read_back_from_folders_of_any_name(name, tmp_path):
    """Also below one, beside another that the name would match as a pattern."""
    for folder in (tmp_path / "a-b", tmp_path / name):
        with checkpoint.open_checkpoints(folder / "run") as checkpoints:
            checkpoint.save(checkpoints, state_at(7 + 10 * (folder.name == name)))
    assert_is(checkpoint.read_state(tmp_path / name / "run", LIKE), 17)
    with checkpoint.open_checkpoints(tmp_path / name / "run") as checkpoints:
        assert_is(checkpoint.restore_latest(checkpoints, LIKE), 17)
        checkpoint.save(checkpoints, state_at(19))
    assert_is(checkpoint.read_state(tmp_path / name / "run", LIKE), 19)
    assert_is(checkpoint.read_state(tmp_path / "a-b" / "run", LIKE), 7)
    assert {path.name for path in (tmp_path / name / "run" / "checkpoints").iterdir()} == {"17", "19"}
