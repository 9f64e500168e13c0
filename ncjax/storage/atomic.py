# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, on disks and in buckets."""

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ncjax.buckets import BucketPath
from ncjax.storage.temporary import TemporaryFolder

DRAFT = re.compile(r"\..+\.(?P<process>\d+)(@(?P<host>[^.]*))?(\.[^.]*)?")
DAY_SECS = 24 * 3600


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A draft beside a file: it takes the file's place when the block ends, and is deleted where the block fails.

    The draft has the suffix of the file; its name begins with a dot and holds the process and its host. The folder is
    made where there is none. In a bucket the draft is a local file, which is then written as one object.
    """
    if isinstance(path, BucketPath):
        folder = TemporaryFolder()
        yield folder.path / path.name
        path.upload(folder.path / path.name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}@{_host()}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def replace_folder(draft: Path, folder: Path) -> None:
    """A folder takes the place of another one, or a new place.

    The other one is moved aside first and deleted last: a process that is killed in between leaves none at this path,
    and both beside it. In a bucket, which cannot rename, the one is deleted and the other moved object by object, those
    directly in it last: until they are there, the folder is not whole.
    """
    if isinstance(draft, BucketPath):
        remove_folder(folder)
        draft.rename(folder)
        return
    if not folder.exists():
        os.replace(draft, folder)
        return
    older = draft.with_name(f"{draft.name}.older")
    remove_folder(older)
    os.replace(folder, older)
    os.replace(draft, folder)
    remove_folder(older)


def remove_folder(folder: Path) -> None:
    """Delete a folder and all in it; nothing where there is none, and what cannot be deleted stays."""
    if isinstance(folder, BucketPath):
        folder.remove_tree()
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside a folder: it takes its place when the block ends, and is deleted where the block fails.

    What was there is deleted. For the holder of a lock alone: there is one draft, whoever makes it.
    """
    draft = path.with_name(f".{path.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        replace_folder(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def remove_drafts(folders: Iterable[Path]) -> None:
    """Delete the drafts that killed processes left directly in some folders; for the holder of a lock alone.

    Those of running processes stay, and for a day those of other hosts, where nobody knows whether they run. Earlier
    versions name no host: theirs are taken for drafts of this one.
    """
    for folder in folders:
        for path in folder.glob(".*"):
            found = DRAFT.fullmatch(path.name)
            if found and path.is_file() and _is_abandoned(path, int(found["process"]), found["host"]):
                with suppress(OSError):
                    path.unlink()


def _is_abandoned(draft: Path, process: int, host: str | None) -> bool:
    if host in (None, _host()):
        return not _is_running(process)
    with suppress(OSError):
        return time.time() - draft.stat().st_mtime > DAY_SECS
    return False


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill does more than ask
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _host() -> str:
    return platform.node().replace(".", "_")


def set_aside(path: Path) -> Path | None:
    """Rename a file that cannot be read to NAME.unreadable.SUFFIX, or a free name like it; None where there is none."""
    if not path.exists():
        return None
    target = path.with_name(f"{path.stem}.unreadable{path.suffix}")
    while target.exists():
        target = target.with_name(f"{target.stem}_again{path.suffix}")
    return path.rename(target)


def can_write(path: Path) -> bool:
    """Whether a file can be made at a path; its folders may be missing. Nothing is written."""
    if path.is_dir():
        return False
    if isinstance(path, BucketPath):
        return True
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_path(path) as draft:
        draft.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Add to the end of a text file in UTF-8; in a bucket it is written anew, whole or not at all."""
    if isinstance(path, BucketPath):
        path.write_text((path.read_text() if path.exists() else "") + text)
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic_path(path) as draft:
        draft.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz file, whole or not at all."""
    with atomic_path(path) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
