# SPDX-License-Identifier: Apache-2.0
"""Paths are what people mean; those that are none are refused in one line."""

import os
from pathlib import Path

import pytest

from ncjax.errors import UserError
from ncjax.paths import user_path

SAME = ("a", "a/b.pt", "/a/b", "./a", "../a", "a~", "~a/../b"[2:], "a/~/b", "run [1]", "$HOME/a", "é", "a\nb", "-x")


@pytest.mark.parametrize("text", SAME)
@pytest.mark.parametrize("kind", [str, Path])
def test_other_paths_stay_as_they_are(text, kind):
    assert user_path(kind(text)) == Path(text)


@pytest.mark.parametrize("text", ["~", "~/a", "~/a/b.pt", "~/../data", "~/~"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_home_folder_is_that_of_the_user(text, kind, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere/home")
    assert user_path(kind(text)) == Path("/somewhere/home" + text[1:])


def test_the_home_folder_of_another_user():
    import pwd

    user = pwd.getpwuid(os.getuid())
    assert user_path(f"~{user.pw_name}/a") == Path(user.pw_dir) / "a"


@pytest.mark.parametrize("path", ["", "a\0b", "~no-such-user/a", Path("~no-such-user")])
def test_what_is_no_path_is_one_line(path):
    with pytest.raises(UserError, match="path") as caught:
        user_path(path)
    assert "\n" not in str(caught.value)
