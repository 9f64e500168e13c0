# SPDX-License-Identifier: Apache-2.0
"""A file beside what was written that tells whether it is still whole: the SHA-256 of each file."""

import hashlib
import json
from pathlib import Path

from ncjax.storage.workdir import write_json

SEAL = "sha256.json"


def write_seal(folder: Path, part: str = "") -> None:
    """Seal all files of a folder, or of one part of it."""
    write_json(folder / SEAL, _digests(folder, part))


def broken_seal(folder: Path, part: str = "") -> str:
    """What has changed in a sealed folder, empty where nothing has; a folder without a seal is taken as it is."""
    try:
        seal = json.loads((folder / SEAL).read_text())
        found = _digests(folder, part)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"{SEAL} cannot be read: {error}"
    changed = [name for name in seal if found.get(name) != seal[name]] if isinstance(seal, dict) else [SEAL]
    return f"{changed[0]} is not what was written" if changed else ""


def _digests(folder: Path, part: str) -> dict[str, str]:
    files = sorted(path for path in (folder / part).rglob("*") if path.is_file() and path.name != SEAL)
    return {str(file.relative_to(folder)): _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
