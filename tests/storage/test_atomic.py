# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest

from ncjax.storage.atomic import atomic_path, can_write, write_arrays, write_json, write_text


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


def test_what_can_be_written_is_known_without_writing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    monkeypatch.chdir(tmp_path)
    for path in ("new", "file", "a/b/new", tmp_path / "new", tmp_path / "a" / "b" / "c" / "new", "../new", "[1]/$/new"):
        assert can_write(Path(path))
    for path in (".", tmp_path, "file/new", "file/a/new"):
        assert not can_write(Path(path))
    assert names(tmp_path) == {"file"}
