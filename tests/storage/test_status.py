# SPDX-License-Identifier: Apache-2.0
"""The status of a work directory from its files alone: half-written, of a process that lives or was killed."""

import json
import os
import platform
import subprocess
import sys

import pytest

from ncjax.config import Config, OptimConfig, to_dict
from ncjax.errors import UserError
from ncjax.storage.metrics import Record, append
from ncjax.storage.status import read_status
from ncjax.storage.workdir import HOLDER, RunFile, locked, write_run_file

MEMBERS = ("mod:5/lr=0.1/wd=5e-4/seed=0", "fine/lr=0.1/wd=5e-4/seed=0")


@pytest.fixture
def workdir(tmp_path):
    """A run of two members that is asked for ten epochs, before its first."""
    config = to_dict(Config(name="mine", labels=("mod:5", "fine"), optim=OptimConfig(epochs=10)))
    write_run_file(tmp_path, RunFile(config=config, command="ncjax run mine", run="1"))
    (tmp_path / "members.json").write_text(json.dumps({"members": dict.fromkeys(MEMBERS)}))
    return tmp_path


def write_epochs(folder, *losses, secs=2.0):
    for epoch, loss in enumerate(losses, start=1):
        values = {"train_loss": dict(zip(MEMBERS, loss, strict=True))}
        append(folder / "metrics.jsonl", Record(step=5 * epoch, epoch=epoch, wall_secs=secs * epoch, values=values))


def only(status):
    (part,) = status.parts
    return part


def test_before_the_first_epoch(workdir):
    status = read_status(workdir)
    part = only(status)
    assert (status.name, status.command, status.trainer, status.report) == ("mine", "ncjax run mine", None, None)
    assert (part.members, part.epochs, part.of_epochs, part.last) == (MEMBERS, 0, 10, None)
    assert part.left_secs is part.checkpoint is None
    assert not part.ended


def test_epochs_losses_and_time_left(workdir):
    write_epochs(workdir, (1.0, 2.0), (0.5, float("nan")), (0.25, float("nan")))
    (workdir / "checkpoints" / "15").mkdir(parents=True)
    (workdir / "checkpoints" / "10").mkdir()
    (workdir / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir()
    part = only(read_status(workdir))
    assert (part.epochs, part.checkpoint) == (3, 15)
    assert part.checkpoint_age >= 0
    assert part.failures == (f"{MEMBERS[1]}: loss not finite in epoch 2",)
    assert 7 * 2 - 2 <= part.left_secs <= 7 * 2  # seven epochs at two seconds, less what has passed of the next


def test_a_half_written_last_line_is_left_out(workdir):
    write_epochs(workdir, (1.0, 2.0))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "epo')
    assert only(read_status(workdir)).epochs == 1


def test_a_run_that_has_ended_has_nothing_left(workdir):
    write_epochs(workdir, (1.0, 2.0))
    (workdir / "results").mkdir()
    (workdir / "results" / "training.json").write_text("{}")
    (workdir / "report.html").write_text("")
    status = read_status(workdir)
    assert only(status).ended
    assert only(status).left_secs == 0
    assert status.report == workdir / "report.html"
    assert not status.evaluated


def test_who_trains_it_lives_while_the_lock_is_held(workdir):
    with locked(workdir):
        trainer = read_status(workdir).trainer
        assert trainer.alive is True
        assert trainer.name == f"process {os.getpid()} on {platform.node()}"
    assert read_status(workdir).trainer is None


def test_a_process_that_was_killed_is_gone_and_one_elsewhere_is_not_known(workdir):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (workdir / HOLDER).write_text(f"process {ended.pid} on {platform.node()}")
    assert read_status(workdir).trainer.alive is False
    (workdir / HOLDER).write_text("process 1 on another-machine")
    assert read_status(workdir).trainer.alive is None


def test_reading_changes_nothing(workdir):
    write_epochs(workdir, (1.0, 2.0))
    before = {path: path.stat().st_mtime_ns for path in [workdir, *workdir.rglob("*")]}
    read_status(workdir)
    assert {path: path.stat().st_mtime_ns for path in [workdir, *workdir.rglob("*")]} == before


def test_cohorts_are_parts(workdir):
    config = read_config(workdir)
    write_run_file(workdir, RunFile(config=config, run="1", cohorts=1))
    write_epochs(workdir, *[(1.0, 2.0)] * 10)
    cohort = workdir / "cohorts" / "1"
    cohort.mkdir(parents=True)
    write_epochs(cohort, (3.0, 4.0))
    assert [part.epochs for part in read_status(workdir).parts] == [10, 1]


def read_config(workdir):
    return json.loads((workdir / "config.json").read_text())["config"]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json.*is this the work directory of a run"):
        read_status(tmp_path)
    write_run_file(tmp_path, RunFile(config={"descent": {}}))
    with pytest.raises(UserError, match=r"names no optim\.epochs"):
        read_status(tmp_path)
