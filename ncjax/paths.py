# SPDX-License-Identifier: Apache-2.0
"""Paths as people give them."""

import os
from pathlib import Path

from ncjax.errors import UserError


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path that is meant: `~` and `~NAME` at its start are home folders; relative ones stay relative.

    Raises:
        UserError: it is empty, holds a null character, or its home folder is not known.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UserError(f"a path is {text!r}; give the path of a file or folder")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"the home folder in {text} is not known; give the path without ~, or set HOME") from error
