# SPDX-License-Identifier: Apache-2.0
"""Paths as people give them."""

import os
import re
from pathlib import Path

from ncjax.buckets import BucketPath, check_bucket
from ncjax.errors import UserError

REMOTE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+")  # pathlib makes one stroke of two


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path that is meant: `~` and `~NAME` at its start are home folders; relative ones stay relative.

    `gs://BUCKET/...` is one in a bucket of Google Cloud Storage.

    Raises:
        UserError: it is empty, holds a null character, is in another kind of store, or its home folder is not known.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UserError(f"a path is {text!r}; give the path of a file or folder")
    if found := REMOTE.match(text):
        return _in_store(found["scheme"], text[found.end() :])
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"the home folder in {text} is not known; give the path without ~, or set HOME") from error


def _in_store(scheme: str, rest: str) -> Path:
    if scheme != "gs":
        raise UserError(
            f"{scheme}://{rest} is in a store that checkpoints cannot be written to; give a folder, or gs://BUCKET/PATH"
        )
    if not rest:
        raise UserError("gs:// names no bucket; give gs://BUCKET/PATH")
    path = BucketPath(f"gs://{rest}")
    check_bucket(path)
    return path
