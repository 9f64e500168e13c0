# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ncjax.storage.atomic import (
    atomic_path,
    can_write,
    remove_drafts,
    set_aside,
    write_arrays,
    write_json,
    write_text,
)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_files_are_written_with_their_folders(tmp_path):
    write_text(tmp_path / "a" / "b" / "text.txt", "één\n")
    write_json(tmp_path / "a" / "content.json", {"x": [1, None]})
    write_arrays(tmp_path / "a" / "arrays.npz", {"x": np.arange(3), "y": np.float32(2)})
    assert (tmp_path / "a" / "b" / "text.txt").read_bytes() == "één\n".encode()
    assert json.loads((tmp_path / "a" / "content.json").read_text()) == {"x": [1, None]}
    with np.load(tmp_path / "a" / "arrays.npz") as found:
        assert {name: found[name].tolist() for name in found.files} == {"x": [0, 1, 2], "y": 2.0}
    assert names(tmp_path / "a") == {"b", "content.json", "arrays.npz"}


def test_the_old_file_stays_when_the_content_is_bad(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert names(tmp_path) == {"a.json"}


def test_nobody_sees_a_draft_and_a_failed_one_is_deleted(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_path(path) as draft:
        draft.write_text("half")
        assert path.read_text() == "old"
        assert draft.name.startswith(".")
        assert draft.suffix == ".txt"
    assert path.read_text() == "half"

    def stopped():
        with atomic_path(path) as draft:
            draft.write_text("more")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "half"
    assert names(tmp_path) == {"file.txt"}


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "a.txt", "x")


HOST, OURS = platform.node().replace(".", "_"), os.getpid()


@pytest.fixture(scope="module")
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("name", "age_days", "removed"),
    [
        (".evaluation.{ended}@{host}.json", 0, True),
        (".evaluation.{ended}.json", 0, True),  # of an earlier version
        (".evaluation.json.{ended}", 0, True),
        ("..lock_holder.{ended}@{host}", 0, True),
        (".member_0.{ended}@{host}.safetensors", 0, True),
        (".2.{ended}@{host}.npz", 0, True),
        (".evaluation.{ours}@{host}.json", 9, False),
        (".evaluation.1@{host}.json", 9, False),
        (".evaluation.{ours}@elsewhere.json", 0, False),
        (".evaluation.{ours}@elsewhere.json", 2, True),
        (".evaluation.{ended}@elsewhere.json", 0, False),
        (".evaluation.99999999999999999999@{host}.json", 0, False),
        ("evaluation.{ended}@{host}.json", 0, False),
        (".{ended}.json", 0, False),
        (".lock", 9, False),
        (".evaluation.json", 9, False),
        (".notes.v2x.txt", 9, False),
    ],
)
def test_drafts_of_processes_that_ended_are_removed_and_nothing_else(tmp_path, ended, name, age_days, removed):
    path = tmp_path / name.format(ended=ended, ours=OURS, host=HOST)
    path.write_text("half")
    at = time.time() - 86_400 * age_days - 60
    os.utime(path, (at, at))
    (tmp_path / f".folder.{ended}@{HOST}.json").mkdir()
    remove_drafts([tmp_path, tmp_path / "none"])
    assert path.exists() is not removed
    assert (tmp_path / f".folder.{ended}@{HOST}.json").is_dir()


def test_what_is_set_aside_replaces_nothing(tmp_path):
    path = tmp_path / "a.json"
    assert set_aside(path) is None
    for content in "123":
        path.write_text(content)
        set_aside(path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "a.unreadable.json": "1", "a.unreadable_again.json": "2", "a.unreadable_again_again.json": "3"
    }  # fmt: skip


def test_what_can_be_written_is_known_without_writing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    monkeypatch.chdir(tmp_path)
    for path in ("new", "file", "a/b/new", tmp_path / "new", tmp_path / "a" / "b" / "c" / "new", "../new", "[1]/$/new"):
        assert can_write(Path(path))
    for path in (".", tmp_path, "file/new", "file/a/new"):
        assert not can_write(Path(path))
    assert names(tmp_path) == {"file"}
