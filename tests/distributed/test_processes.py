# SPDX-License-Identifier: Apache-2.0
"""Several real processes, joined by gloo on the CPU, train and evaluate as one process does."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.runs import (
    assert_close,
    assert_same_features,
    command,
    ended,
    messages,
    records,
    start,
    start_several,
    without_what_differs,
)


def all_well(processes: list) -> None:
    for code, err in ended(processes, timeout=600):
        assert code == 0, err


@pytest.mark.slow
def test_two_processes_train_like_one_with_a_member_too_many(tmp_path: Path) -> None:
    """Three members on a mesh of 2 x 2, where a fourth fills up: the same losses and features, and three of each."""
    all_well([start(command("train", tmp_path / "one"))])
    spread = ["--mesh.member", 2, "--mesh.data", 0]
    all_well(start_several(command("train", tmp_path / "two", *spread), processes=2, devices=2))
    assert [len(record["train_loss"]) for record in records(tmp_path / "two")] == [3, 3]
    assert_close(records(tmp_path / "one"), records(tmp_path / "two"), atol=1e-5)
    assert_same_features(tmp_path / "one", tmp_path / "two", 2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_one_of_two_is_stopped_both_end_and_the_run_goes_on(number: int, tmp_path: Path) -> None:
    often = ["--mesh.data", 0, "--optim.epochs", 40, "--checkpoint-minutes", 1e-6]
    pair = start_several(command("train", tmp_path, *often), processes=2, devices=1)
    while not list((tmp_path / "checkpoints").glob("5")) and pair[1].poll() is None:
        time.sleep(0.01)
    pair[1].send_signal(number)
    (main, err), (other, _) = ended(pair, timeout=120)
    if main == -signal.SIGABRT and number == signal.SIGKILL:  # it waited for no collective: JAX ends it
        assert "another task died" in err
    else:
        assert main == 75, err
        assert "the same command goes on" in err
    assert other == (75 if number == signal.SIGTERM else -number)
    assert len(records(tmp_path)) < 40
    all_well(start_several(command("train", tmp_path, *often), processes=2, devices=1))
    assert [record["epoch"] for record in records(tmp_path)] == list(range(1, 41))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_eight_devices_are_the_same_in_one_two_and_four_processes(tmp_path: Path) -> None:
    spread = ["--mesh.member", 2, "--mesh.data", 4, "--evaluate.variants", "raw"]
    all_well([start(command("run", tmp_path / "1", *spread), devices=8)])
    for count in (2, 4):
        folder = tmp_path / str(count)
        all_well(start_several(command("run", folder, *spread), processes=count, devices=8 // count))
        assert_close(records(tmp_path / "1"), records(folder), atol=1e-5)
        one, other = (json.loads((w / "results" / "evaluation.json").read_text()) for w in (tmp_path / "1", folder))
        assert_close(without_what_differs(one), without_what_differs(other), atol=1e-4)
        assert (folder / "report.html").exists()


def test_a_process_that_waits_in_vain_says_so_and_ends_as_one_to_start_again(tmp_path: Path) -> None:
    environment = {"NCJAX_PROCESSES": 2, "NCJAX_PROCESS": 1, "NCJAX_JOIN_SECONDS": 2}
    ((code, err),) = ended([start(command("train", tmp_path / "new"), NCJAX_COORDINATOR="127.0.0.1:9", **environment)])
    assert code == 75 or code < 0, err  # launch/again.sh starts both again
    assert messages(err)[0] == "ncjax: process 1 of 2 waits for the others at 127.0.0.1:9, at most 2 s"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NCJAX_DEVICES": 4}, "NCJAX_DEVICES promises 4 devices, but 2 cpu found (2 on process 0)"),
        ({"NCJAX_COORDINATOR": "localhost:1"}, "NCJAX_COORDINATOR is set, but NCJAX_PROCESSES is not"),
        ({"NCJAX_DISTRIBUTED": "yes"}, "NCJAX_DISTRIBUTED is 'yes', but must be auto"),
    ],
)
def test_what_is_missing_is_said_in_one_line(environment: dict, message: str, tmp_path: Path) -> None:
    ((code, err),) = ended([start(command("train", tmp_path / "new"), devices=2, **environment)])
    assert code == 2
    (line,) = messages(err)
    assert line.startswith("ncjax: error: ")
    assert message in line
    assert not (tmp_path / "new").exists()
