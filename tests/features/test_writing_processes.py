# SPDX-License-Identifier: Apache-2.0
"""Several processes write features of one run together; one that is killed in the middle costs nothing but time."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from ncjax.features.store import saved_epochs
from tests.runs import assert_same_features, command, ended, start, start_several

# Small pieces; the process that KILLED names is killed when it has written some of them.
IN_PIECES = """
import os, signal
from ncjax.features import outputs, writing
outputs.PIECE_BYTES = 2**11
whole, left = writing._write_rows, [3]
def write(*arguments):
    whole(*arguments)
    left[0] -= 1
    if left[0] == 0 and os.environ.get("KILLED") == os.environ.get("NCJAX_PROCESS"):
        os.kill(os.getpid(), signal.SIGKILL)
writing._write_rows = write
"""
OPTIONS = ["--labels", "mod:5", "fine", "--seeds", 2, "--evaluate.epochs", 1]


def go(workdir: Path, killed: int) -> list[int]:
    """The exit codes of four processes of two devices; one is killed while it writes features, or none (-1)."""
    line = command("train", workdir, *OPTIONS, "--mesh.member", 2, "--mesh.data", 4)
    started = start_several(line, processes=4, devices=2, before=IN_PIECES, KILLED=killed)
    return [code for code, _ in ended(started)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_processes_write_what_one_does_and_go_on_after_a_kill(tmp_path):
    ((code, err),) = ended([start(command("train", tmp_path / "one", *OPTIONS))])
    assert code == 0, err
    codes = go(tmp_path / "four", killed=2)
    assert codes[2] == -signal.SIGKILL
    assert 0 not in codes
    assert saved_epochs(tmp_path / "four") == ()  # what is half written is no features
    assert go(tmp_path / "four", killed=-1) == [0] * 4
    assert {path.name for path in (tmp_path / "four" / "features").iterdir()} == {"1", "2"}
    for epoch in (1, 2):
        assert_same_features(tmp_path / "four", tmp_path / "one", epoch, atol=1e-4)
    shutil.rmtree(tmp_path / "four" / "features" / "2")  # the same command makes them again from the checkpoint
    assert go(tmp_path / "four", killed=-1) == [0] * 4
    assert_same_features(tmp_path / "four", tmp_path / "one", 2, atol=1e-4)
    assert os.listdir(tmp_path / "four" / "features" / "2").count("sha256.json") == 1
