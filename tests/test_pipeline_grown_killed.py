# SPDX-License-Identifier: Apache-2.0
"""Real processes that grow a run, killed before the cohort is there, when it is, and while it is trained."""

import hashlib
import shutil
import signal
import time

import numpy as np
import pytest

from ncjax.features.run import Run
from tests.runs import assert_close, assert_same_features, command, ended, records, start, start_several

EPOCHS = 12
OPTIONS = ["--chunk-steps", 2, "--evaluate.epochs", 7, "--checkpoint-minutes", 1e-6]
OPTIONS = [*OPTIONS, "--optim.epochs", EPOCHS]


def go(workdir, seeds):
    """Three members a seed, for 60 steps."""
    return start(command("train", workdir, *OPTIONS, "--seeds", seeds))


def content(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "cohorts" not in path.parts)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != ".lock" and path != folder / "config.json"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    ((code, err),) = ended([go(folder, 1)])
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(finished, folder)
    ((code, err),) = ended([go(folder, 2)])
    assert code == 0, err
    return folder


def is_trained_to(workdir, step):
    steps = (path.name for path in (workdir / "cohorts" / "1" / "checkpoints").glob("*"))
    return any(name.isdigit() and int(name) >= step for name in steps)


MOMENTS = {
    "at the start": lambda workdir: (workdir / ".lock_holder").exists(),
    "folder of the cohort": lambda workdir: (workdir / "cohorts" / "1").exists(),
    "config of the cohort": lambda workdir: (workdir / "cohorts" / "1" / "config.json").exists(),
    "members of the cohort": lambda workdir: (workdir / "cohorts" / "1" / "members.json").exists(),
    "early checkpoint": lambda workdir: is_trained_to(workdir, 3),
    "late checkpoint": lambda workdir: is_trained_to(workdir, 41),
    "last step": lambda workdir: is_trained_to(workdir, 60),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_growth_goes_on_and_ends_like_an_undisturbed_one(finished, undisturbed, tmp_path, moment):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    before, process = content(workdir), go(workdir, 2)
    while process.poll() is None and not MOMENTS[moment](workdir):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    ended([process])
    assert {name: now for name, now in content(workdir).items() if name in before} == before
    assert Run.open(workdir).features(EPOCHS).names[:1] == Run.open(finished).features(EPOCHS).names[:1]
    ((code, err),) = ended([go(workdir, 2)])
    assert code == 0, err
    cohort, theirs = workdir / "cohorts" / "1", undisturbed / "cohorts" / "1"
    assert records(cohort) == records(theirs)
    for epoch in (7, EPOCHS):
        assert_same_features(cohort, theirs, epoch)
    assert {name: now for name, now in content(workdir).items() if name in before} == before
    run = Run.open(workdir)
    assert run.has_ended
    assert [member.seed for member in run.members] == [0, 1] * 3
    assert np.isfinite(run.features().train.logits).all()


@pytest.mark.slow
def test_several_processes_grow_a_run(finished, undisturbed, tmp_path):
    """The cohort of two processes is that of one."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    before = content(workdir)
    again = command("train", workdir, *OPTIONS, "--seeds", 2, "--mesh.member", 2)
    for code, err in ended(start_several(again, processes=2, devices=1)):
        assert code == 0, err
    assert {name: now for name, now in content(workdir).items() if name in before} == before
    cohort, theirs = workdir / "cohorts" / "1", undisturbed / "cohorts" / "1"
    assert_close(records(cohort), records(theirs), atol=1e-4)
    assert_same_features(cohort, theirs, EPOCHS, atol=1e-3)
    assert Run.open(workdir).has_ended
