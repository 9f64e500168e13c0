# SPDX-License-Identifier: Apache-2.0
"""Real processes, stopped for real at random moments, also inside the writing of a checkpoint, go on and end like one
that was left alone.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.runs import assert_same_features, command, ended, records, start, state_of

OPTIONS = ["--optim.epochs", 12, "--chunk-steps", 2, "--evaluate.epochs", 7, "--data.crop-padding", 1, "--data.flip"]
OFTEN = ["--checkpoint-minutes", 1e-6]  # after every chunk: three in an epoch of five steps
STEPS = 60


def go(workdir: Path) -> subprocess.Popen:
    """Start the run of a work directory."""
    return start(command("train", workdir, *OPTIONS, *OFTEN))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    ((code, err),) = ended([go(workdir)])
    assert code == 0, err
    return workdir


def drafts(workdir: Path) -> list[Path]:
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def last_step(workdir: Path) -> int:
    """Of the checkpoints with their final names, 0 where there is none."""
    return max((int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def stop(workdir: Path, process, number: int, *, after: float, first_step: int = 0, in_write: bool = False) -> int:
    """Send a signal so many seconds after a checkpoint of that step, in a write where asked for; the exit code."""
    while process.poll() is None and last_step(workdir) < first_step:
        time.sleep(0.002)
    time.sleep(after)
    while in_write and process.poll() is None and not drafts(workdir):
        pass
    process.send_signal(number)
    ((code, _),) = ended([process])
    return code


def assert_goes_on_like(undisturbed: Path, workdir: Path) -> None:
    ((code, err),) = ended([go(workdir)])
    assert code == 0, err
    assert records(workdir) == records(undisturbed)
    assert [record["epoch"] for record in records(workdir)] == list(range(1, 13))
    for ours, theirs in zip(state_of(workdir, STEPS), state_of(undisturbed, STEPS), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for epoch in (7, 12):
        assert_same_features(workdir, undisturbed, epoch)


def test_run_killed_in_the_middle_of_a_write_ends_bit_for_bit_like_an_undisturbed_one(
    undisturbed: Path, tmp_path: Path
) -> None:
    assert stop(tmp_path, go(tmp_path), signal.SIGKILL, after=0, first_step=16, in_write=True) == -signal.SIGKILL
    assert 16 <= last_step(tmp_path) < STEPS
    assert_goes_on_like(undisturbed, tmp_path)


@pytest.mark.slow
def test_signal_is_answered_with_a_checkpoint_and_code_75(undisturbed: Path, tmp_path: Path) -> None:
    for number, first_step in ((signal.SIGTERM, 7), (signal.SIGINT, 22)):
        process = go(tmp_path)
        assert stop(tmp_path, process, number, after=0, first_step=first_step) == 75
        assert first_step <= last_step(tmp_path) < STEPS
    assert_goes_on_like(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_thirty_killed_runs_end_bit_for_bit_like_an_undisturbed_one(undisturbed: Path, tmp_path: Path) -> None:
    """Ten at any moment after the start of the process, twenty at any moment of the training, then inside a write.

    Prints the rows of the table in docs/reliability.md.
    """
    rng, started = np.random.default_rng(int(os.environ.get("SEED", "0"))), time.monotonic()
    assert_goes_on_like(undisturbed, tmp_path / "measured")
    longest = time.monotonic() - started
    for run in range(30):
        workdir, in_write, code = tmp_path / str(run), run >= 10, 0
        while code == 0:  # where the moment came after the end of the run, another is drawn
            shutil.rmtree(workdir, ignore_errors=True)
            after = 0.0 if in_write else rng.uniform(0, 0.9 * longest)
            first_step = int(rng.integers(1, STEPS - 4)) if in_write else 0
            process = go(workdir)
            code = stop(workdir, process, signal.SIGKILL, after=after, first_step=first_step, in_write=in_write)
        assert code == -signal.SIGKILL
        where = f"in a write, after step {first_step}" if in_write else f"{after:.1f} s after the start"
        epochs = len(records(workdir)) if (workdir / "metrics.jsonl").exists() else 0
        found = f"| {run + 1} | {where} | {last_step(workdir)} | {epochs} | {len(drafts(workdir))} |"
        assert_goes_on_like(undisturbed, workdir)
        print(f"{found} yes |")
