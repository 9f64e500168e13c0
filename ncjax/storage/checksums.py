# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of the files of a folder, in a file beside them: tells whether they are still what was written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ncjax.storage.atomic import write_json

CHECKSUMS = "sha256.json"


def write_checksums(folder: Path, part: str = "") -> None:
    """Write the checksums of all files below a folder, or below one part of it, to `folder/sha256.json`."""
    write_json(folder / CHECKSUMS, _digests(folder, part))


def damage(folder: Path, part: str = "") -> str:
    """Compare a folder with its checksums; reads every file and writes none.

    Args:
        folder: that `write_checksums` was called with.
        part: as there.

    Returns:
        Which file is missing or has changed; empty where none has, and for a folder without checksums.
    """
    try:
        expected = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        found = _digests(folder, part)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS} cannot be read: {error}"
    if not isinstance(expected, dict):
        return f"{CHECKSUMS} is not what was written"
    changed = [name for name in expected if found.get(name) != expected[name]]
    return f"{changed[0]} is not what was written" if changed else ""


def _digests(folder: Path, part: str) -> Mapping[str, str]:
    files = sorted(path for path in (folder / part).rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return {str(file.relative_to(folder)): _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
