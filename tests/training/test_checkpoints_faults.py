# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints, other numbers of devices, a full disk."""

import dataclasses
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.config import MeshConfig, ModelConfig
from ncjax.storage.checksums import CHECKSUMS
from ncjax.training import checkpoints as checkpoint
from ncjax.training.loop import prepare
from ncjax.training.state import MemberState, StepMetrics, TrainState, init_state
from tests.runs import command, ended, messages, records, start


@pytest.fixture
def three(config):
    """Three members of a network that compiles fast."""
    return dataclasses.replace(config, model=ModelConfig(name="mlp", width=8), labels=("mod:5", "fine", "mod:2"))


def state_of(config, dataset):
    run = prepare(config, dataset)
    return init_state(run.spec, run.ensemble)


@pytest.fixture
def small():
    """A state of three members that no compiler has seen."""
    zeros = StepMetrics(jnp.zeros(3), jnp.zeros(3))
    weights = {"linear": {"kernel": jnp.arange(3 * 300.0).reshape(3, 300), "bias": jnp.ones((3, 4))}}
    return TrainState(MemberState(weights, {}, weights, jnp.full(3, -1, jnp.int32), zeros), jnp.int32(0))


def save_at(workdir, state, *steps):
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        for step in steps:
            checkpoint.save(checkpoints, state._replace(step=state.step + step))
            checkpoint.finish(checkpoints)


def restored(workdir, like):
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        return checkpoint.restore_latest(checkpoints, like)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_damage_anywhere_in_the_newest_checkpoint_falls_back_to_the_one_before(small, tmp_path, capsys):
    state = small
    save_at(tmp_path / "whole", state, 3, 5)
    files = [path for path in (tmp_path / "whole" / "checkpoints" / "5" / "default").rglob("*") if path.is_file()]
    assert len(files) > 5
    ways = {"bit": flip_a_bit, "half": lambda file: file.write_bytes(file.read_bytes()[:-1]), "gone": Path.unlink}
    for index, file in enumerate(sorted(files)):
        name, damage = list(ways.items())[index % len(ways)]
        copy = tmp_path / f"{name}_{index}"
        shutil.copytree(tmp_path / "whole", copy)
        damage(copy / file.relative_to(tmp_path / "whole"))
        assert int(restored(copy, state).step) == 3, file
        message = capsys.readouterr().err
        assert (
            f"checkpoint 5 is damaged ({file.relative_to(tmp_path / 'whole' / 'checkpoints' / '5')} is not" in message
        )
        assert "going on from step 3" in message
        assert (copy / "damaged" / "5").is_dir()
        save_at(copy, state, 5)
        assert int(restored(copy, state).step) == 5


def test_checkpoint_without_checksums_is_read_as_it_is(small, tmp_path):
    state = small
    save_at(tmp_path, state, 3)
    (tmp_path / "checkpoints" / "3" / CHECKSUMS).unlink()
    assert int(restored(tmp_path, state).step) == 3


def test_draft_of_a_killed_process_is_removed(small, tmp_path):
    state = small
    save_at(tmp_path, state, 3)
    whole = tmp_path / "checkpoints" / "3"
    shutil.copytree(whole, tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp")
    assert int(restored(tmp_path, state).step) == 3
    left, until = tmp_path / "checkpoints", time.monotonic() + 30  # Orbax deletes in a thread
    while [path.name for path in left.iterdir()] != ["3"] and time.monotonic() < until:
        time.sleep(0.05)
    assert [path.name for path in left.iterdir()] == ["3"]


@pytest.mark.parametrize(
    "shard", [pytest.param(False, marks=pytest.mark.slow, id="whole"), pytest.param(True, id="sharded parameters")]
)
def test_checkpoint_of_eight_devices_is_read_on_one_two_and_four(three, dataset, tmp_path, shard):
    """Three members on 4 x 2 have a padded count of four, on 1 x 1 and 1 x 2 three."""
    written = state_of(dataclasses.replace(three, mesh=MeshConfig(member=4, data=2, shard_params=shard)), dataset)
    assert written.members.nan_step.shape == (4,)
    save_at(tmp_path, written, 3)
    for member, data in ((1, 1), (1, 2), (4, 1)):
        like = state_of(dataclasses.replace(three, mesh=MeshConfig(member=member, data=data)), dataset)
        found = restored(tmp_path, like)
        for a, b, c in zip(*map(jax.tree.leaves, (x.members.params for x in (written, found, like))), strict=True):
            np.testing.assert_array_equal(a[:3], b[:3])
            assert b.shape == c.shape
            assert b.sharding == c.sharding


def test_epochs_for_analysis_are_kept_and_of_the_others_the_newest_two(small, tmp_path):
    state = small
    with checkpoint.open_checkpoints(tmp_path, 10) as checkpoints:
        for step in (4, 10, 13, 20, 24, 27, 28):
            checkpoint.save(checkpoints, state._replace(step=state.step + step))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [10, 20, 27, 28]


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"


@pytest.mark.slow
def test_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    """No file may be larger than 20 kB: the first arrays of a wide network are."""
    wide = command("train", tmp_path / "full", "--model.width", 64, "--evaluate.epochs", 2)
    ((code, err),) = ended([start(wide, before=FULL, JAX_ENABLE_COMPILATION_CACHE="false")])
    assert code == 2, err
    last = err.strip().splitlines()[-1]
    assert "cannot be written" in last, err
    assert "Traceback" not in err
    ((code, err),) = ended([start(wide)])
    assert code == 0, err
    assert [record["epoch"] for record in records(tmp_path / "full")] == [1, 2]


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    ((code, err),) = ended([start(command("train", tmp_path / "file" / "run"))])
    assert code == 2
    (line,) = messages(err)
    assert line.startswith(f"ncjax: error: cannot write {tmp_path}/file/run: ")
