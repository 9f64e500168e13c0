# SPDX-License-Identifier: Apache-2.0
"""Damage of a folder is found and named."""

import json

import pytest

from ncjax.storage.checksums import CHECKSUMS, damage, write_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part").mkdir()
    for name in ("a", "part/b", "part/c"):
        (tmp_path / name).write_text(f"content of {name}")
    return tmp_path


def test_a_whole_folder_is_sound_until_a_file_changes_or_goes(folder):
    assert damage(folder) == ""  # nothing is known yet
    write_checksums(folder)
    assert damage(folder) == ""
    (folder / "new").write_text("a later file does not matter")
    assert damage(folder) == ""
    (folder / "part" / "b").write_text("content of part/B")
    assert damage(folder) == "part/b is not what was written"
    write_checksums(folder)
    (folder / "part" / "c").unlink()
    assert damage(folder) == "part/c is not what was written"


def test_a_marked_run_has_checksums(folder):
    assert damage(folder, identity={"run": "4be1"}) == "sha256.json is missing: was it half deleted?"
    assert damage(folder, identity={"run": ""}) == ""
    write_checksums(folder, identity={"run": "4be1"})
    assert damage(folder, identity={"run": "4be1"}) == ""


def test_a_part_is_compared_alone(folder):
    write_checksums(folder, "part")
    (folder / "a").write_text("changed")
    assert damage(folder, "part") == ""
    (folder / "part" / "b").write_text("changed")
    assert damage(folder, "part") == "part/b is not what was written"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "\xff", "", "{}", "[" * 9999, "3", "null", '{"of": {}, "files": {}}', '{"of": 3, "files": {"a": ""}}'],
)
def test_damaged_checksums_are_damage(folder, content):
    (folder / CHECKSUMS).write_text(content, encoding="latin1")
    assert damage(folder).startswith(CHECKSUMS)


NAMED = {"run": "4be1", "step": 5}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, ""),
        (NAMED, ""),
        ({"step": 5}, ""),
        ({"run": "4be1"}, ""),
        ({"epoch": 1}, ""),
        ({"run": "4be1", "step": 6}, "it is of step 5, not of step 6"),
        ({"run": "4be1", "step": -5}, "it is of step 5, not of step -5"),
        ({"run": "77aa", "step": 5}, "it is of run 4be1, not of run 77aa"),
        ({"run": "", "step": 5}, "it is of run 4be1, not of run "),
        ({"step": "5"}, "it is of step 5, not of step 5"),
    ],
)
def test_a_folder_says_what_it_is_of(folder, asked, message):
    write_checksums(folder, identity=NAMED)
    assert damage(folder, identity=asked) == message


@pytest.mark.parametrize("asked", [{}, NAMED, {"run": "77aa", "step": 6}])
def test_checksums_of_earlier_versions_are_of_anything(folder, asked):
    write_checksums(folder)
    content = json.loads((folder / CHECKSUMS).read_text())
    (folder / CHECKSUMS).write_text(json.dumps(content["files"]))
    assert damage(folder, identity=asked) == ""
    (folder / "a").write_text("changed")
    assert damage(folder, identity=asked) == "a is not what was written"
