# SPDX-License-Identifier: Apache-2.0
"""A run goes on with fewer or more devices, its members spread anew."""

import dataclasses
import shutil
import signal
import time
from pathlib import Path

import pytest

from ncjax.training.loop import fit, prepare
from tests.runs import assert_close, assert_same_features, command, ended, records, start, start_several


def test_three_members_of_eight_devices_go_on_with_four(config, dataset, with_mesh, tmp_path):
    config = dataclasses.replace(config, labels=("mod:5", "fine", "mod:2"), checkpoint_epochs=1)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="mlp", width=8))
    fit(prepare(with_mesh(config, 2, 4), dataset), tmp_path / "eight", lambda epoch, state: None)
    shutil.copytree(tmp_path / "eight", tmp_path / "four")
    for later in ("20", "30"):
        shutil.rmtree(tmp_path / "four" / "checkpoints" / later)
    seen = []
    outcome = fit(prepare(with_mesh(config, 4, 1), dataset), tmp_path / "four", lambda epoch, state: seen.append(epoch))
    assert seen == [2, 3]
    assert outcome.state.members.nan_step.sharding.mesh.shape == {"member": 4, "data": 1}
    assert len(records(tmp_path / "four")[-1]["train_loss"]) == 3
    assert_close(records(tmp_path / "eight"), records(tmp_path / "four"), atol=1e-5)


OPTIONS = ["--optim.epochs", 12, "--chunk-steps", 2, "--checkpoint-minutes", 1e-6]


def spread(workdir: Path, member: int, data: int) -> list[object]:
    return command("train", workdir, *OPTIONS, "--mesh.member", member, "--mesh.data", data)


def stop(process, workdir: Path, step: int) -> None:
    """SIGTERM, when a checkpoint of that step or a later one is there."""
    while process.poll() is None and not any(
        path.name.isdigit() and int(path.name) >= step for path in (workdir / "checkpoints").glob("*")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    ((code, err),) = ended([process], timeout=900)
    assert code == 75, err


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_command_of_eight_devices_goes_on_with_four_and_then_with_sixteen_of_two_processes(tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    assert ended([start(spread(tmp_path / "eight", 2, 4), devices=8)], timeout=900)[0][0] == 0
    stop(start(spread(moved, 2, 4), devices=8), moved, 12)
    stop(start(spread(moved, 4, 1), devices=4), moved, 32)
    for code, err in ended(start_several(spread(moved, 4, 4), processes=2, devices=8), timeout=900):
        assert code == 0, err
    assert [record["step"] for record in records(moved)] == list(range(5, 61, 5))
    assert_close(records(tmp_path / "eight"), records(moved), atol=1e-4)
    assert_same_features(tmp_path / "eight", moved, 12, atol=1e-3)
