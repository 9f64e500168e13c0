# SPDX-License-Identifier: Apache-2.0
"""Folders for Orbax, whatever their names are."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from ncjax.buckets import BucketPath

_OrbaxPath: Any = type(ocp.checkpoint_manager.epath.Path("/"))


class LiteralPath(_OrbaxPath):
    """A folder whose path may hold `[`, `*` and `?`: Orbax looks for its own files with patterns below it.

    Orbax's own class takes the whole path for a pattern, finds nothing below `run[1]`, and writes what cannot be read.
    """

    def glob(self, pattern: str) -> "Iterator[LiteralPath]":
        """What matches the pattern below this folder."""
        return (self / found for found in glob.glob(pattern, root_dir=self))


def literal_path(folder: Path) -> Any:
    """The absolute path of a folder, to be given to Orbax."""
    if isinstance(folder, BucketPath):
        return ocp.checkpoint_manager.epath.Path(folder)
    return LiteralPath(folder.absolute())
