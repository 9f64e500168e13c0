# SPDX-License-Identifier: Apache-2.0
"""An error of writing is explained by what can be seen, not by a guess."""

import errno
import os

import pytest

from ncjax.storage.failures import place_of, why_not_written

FULL, RIGHT, GONE = "the disk is full", "no right to write", "renamed or deleted"


def system(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (system(errno.ENOSPC), FULL),
        (system(errno.EDQUOT), FULL),
        (ValueError("RESOURCE_EXHAUSTED: write: No space left on device [OS error 28]\nmore"), FULL),
        (ValueError("Disk quota exceeded"), FULL),
        (system(errno.EACCES), RIGHT),
        (system(errno.EPERM), RIGHT),
        (system(errno.EROFS), RIGHT),
        (ValueError("PERMISSION_DENIED: Permission denied"), RIGHT),
        (system(errno.EIO), None),
        (system(errno.EFBIG), None),
        (ValueError(""), None),
        (RuntimeError("something else"), None),
    ],
)
def test_the_cause_is_named_where_it_is_known(tmp_path, error, cause):
    known = tmp_path / "config.json"
    known.write_text("")
    for place in (known, tmp_path):
        found = why_not_written(place, error)
        assert {word for word in (FULL, RIGHT, GONE) if word in found} == ({cause} if cause else set())
        assert "\n" not in found
    known.unlink()
    assert f"{known} is gone: was it renamed or deleted?" in why_not_written(known, error)
    assert FULL not in why_not_written(known, error)


def test_a_folder_made_anew_is_another_place(tmp_path):
    folder = tmp_path / "run"
    assert place_of(folder) is None
    folder.mkdir()
    place = place_of(folder)
    assert place == place_of(folder)
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    assert place_of(folder) != place == place_of(tmp_path / "moved")
