# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of the files of a folder, and what it is of, in a file beside them: tells whether it is what was written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ncjax.errors import first_line
from ncjax.storage.atomic import write_json

CHECKSUMS = "sha256.json"
Identity = Mapping[str, str | int]
UNNAMED: Identity = MappingProxyType({})


def write_checksums(folder: Path, part: str = "", identity: Identity = UNNAMED) -> None:
    """Write the checksums of all files below a folder, or below one part of it, to `folder/sha256.json`.

    Args:
        folder: whose files are complete.
        part: a folder in it; empty: all of it.
        identity: what the folder is of, such as `{"run": "4be1", "step": 5}`.
    """
    write_json(folder / CHECKSUMS, {"of": dict(identity), "files": _digests(folder, part)})


def damage(folder: Path, part: str = "", identity: Identity = UNNAMED) -> str:
    """Compare a folder with its checksums; reads every file and writes none.

    Args:
        folder: that `write_checksums` was called with.
        part: as there.
        identity: what the folder should be of; what the checksums of earlier versions do not say is not compared.

    Returns:
        Which file is missing or has changed, or what else the folder is of; empty where nothing is wrong, and for a
        folder without checksums of a run that is not marked: earlier versions wrote none.
    """
    try:
        written = _written(json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")))
        if written is None:
            return f"{CHECKSUMS} is not what was written"
        other = [name for name, wanted in identity.items() if written.of.get(name, wanted) != wanted]
        if other:
            return f"it is of {other[0]} {written.of[other[0]]}, not of {other[0]} {identity[other[0]]}"
        found = _digests(folder, part)
    except FileNotFoundError:
        return f"{CHECKSUMS} is missing: was it half deleted?" if identity.get("run") else ""
    except (OSError, ValueError, RecursionError) as error:
        return f"{CHECKSUMS} cannot be read: {first_line(error)}"
    changed = [name for name in written.files if found.get(name) != written.files[name]]
    return f"{changed[0]} is not what was written" if changed else ""


class _Written(NamedTuple):
    """The content of sha256.json."""

    of: Mapping[str, object]
    files: Mapping[str, object]


def _written(content: object) -> _Written | None:
    """What `write_checksums` wrote; earlier versions wrote the files alone. None: it is something else."""
    if not isinstance(content, dict) or not content:
        return None
    of, files = (content["of"], content["files"]) if set(content) == {"of", "files"} else ({}, content)
    return _Written(of, files) if isinstance(of, dict) and isinstance(files, dict) and files else None


def _digests(folder: Path, part: str) -> Mapping[str, str]:
    files = sorted(path for path in (folder / part).rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return {str(file.relative_to(folder)): sha256_of(file) for file in files}


def sha256_of(file: Path) -> str:
    """SHA-256 of one file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
