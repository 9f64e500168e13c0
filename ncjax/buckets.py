# SPDX-License-Identifier: Apache-2.0
"""Paths in a bucket of Google Cloud Storage, with the methods of pathlib that ncjax uses; gcsfs asks the store."""

import errno
import glob
import io
import os
import stat
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PosixPath
from typing import Any

from ncjax.errors import UserError, first_line

SCHEME = "gs:"
PLAIN_FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


class BucketPath(PosixPath):
    """A path such as `gs://bucket/runs/demo`; those joined to it and its parents are of the same kind.

    A bucket has no folders: one exists while something is below it. A file is written as one object, whole or not at
    all, and what is written is seen by every reader at once. What the store refuses, or cannot be reached for after
    gcsfs has tried again for a minute, is an OSError.
    """

    def __str__(self) -> str:
        first, *rest = self.parts or (".",)
        return f"{SCHEME}//{'/'.join(rest)}" if first == SCHEME else super().__str__()

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> "BucketPath":
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        return self

    def expanduser(self) -> "BucketPath":
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of an object; of a folder, the time of the newest object directly in it."""
        with _errors(self):
            found = _store().info(str(self))
            is_folder = found["type"] == "directory"
            listed = _store().ls(str(self), detail=True) if is_folder else [found]
        size, changed = found.get("size") or 0, max((_changed(one) for one in listed), default=0.0)
        return os.stat_result((FOLDER if is_folder else PLAIN_FILE, 0, 0, 1, 0, 0, size, changed, changed, changed))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return bool(self._kind())

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind() == "directory"

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind() == "file"

    def _kind(self) -> str:
        try:
            with _errors(self):
                return str(_store().info(str(self))["type"])
        except FileNotFoundError:
            return ""

    def iterdir(self) -> Generator["BucketPath", None, None]:
        with _errors(self):
            found = _store().ls(str(self), detail=False)
        yield from map(_path, found)

    def glob(self, pattern: str) -> Generator["BucketPath", None, None]:
        """What matches a pattern without `**`; folders too."""
        with _errors(self):
            found = _store().glob(f"{glob.escape(str(self))}/{pattern}")
        yield from map(_path, found)

    def rglob(self, pattern: str) -> Generator["BucketPath", None, None]:
        """All objects below, whatever their depth, whose name fits."""
        with _errors(self):
            found = _store().find(str(self))
        yield from (path for path in map(_path, found) if path.match(pattern))

    def open(self, mode: str = "r", *_: Any, encoding: str | None = None, errors: str | None = None) -> Any:
        """A stream to read from.

        Raises:
            io.UnsupportedOperation: it is asked for writing, which `write_bytes` and `upload` do.
        """
        if mode not in ("r", "rb", "rt"):
            raise io.UnsupportedOperation(f"{self} is an object of a bucket, which is written at once")
        with _errors(self):
            stream: Any = _store().open(str(self), "rb", cache_type="readahead")
        return stream if mode == "rb" else io.TextIOWrapper(stream, encoding=encoding or "utf-8", errors=errors)

    def read_bytes(self) -> bytes:
        with _errors(self):
            content: bytes = _store().cat_file(str(self))
        return content

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        with _errors(self):
            _store().pipe_file(str(self), bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, *_: Any) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def upload(self, file: Path) -> None:
        """Becomes a copy of a local file."""
        with _errors(self):
            _store().put_file(str(file), str(self))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with _errors(self):
                _store().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: str | os.PathLike[str]) -> "BucketPath":
        """Moves an object, or all below a folder one after the other: those directly in it come last."""
        with _errors(self):
            files = _store().find(str(self)) or [str(self)]
            for name in sorted(files, key=lambda name: (-name.count("/"), name)):
                below = _path(name).relative_to(self)
                _store().cp_file(name, str(BucketPath(target) / below) if below.parts else str(target))
                _store().rm_file(name)
        return BucketPath(target)

    def remove_tree(self) -> None:
        """Deletes all below; nothing where there is nothing."""
        try:
            with _errors(self):
                _store().rm(str(self), recursive=True)
        except FileNotFoundError:
            return


def check_bucket(path: Path) -> None:
    """Raises a UserError where a path is in a bucket and what asks for buckets is not installed."""
    if isinstance(path, BucketPath) and "gcsfs" not in sys.modules and find_spec("gcsfs") is None:
        raise UserError("a path gs://... needs gcsfs; install it with: pip install 'ncjax[gcs]'")


def is_in_bucket(path: object) -> bool:
    """Whether a path, such as an error names, is in a bucket."""
    return str(path).startswith(f"{SCHEME}//")


def _path(name: str) -> BucketPath:
    return BucketPath(f"{SCHEME}//{name}")


def _changed(info: dict[str, Any]) -> float:
    when: Any = info.get("mtime")
    return float(when.timestamp()) if when else 0.0


@cache
def _store() -> Any:
    import fsspec  # type: ignore[import-untyped]

    return fsspec.filesystem("gs", use_listings_cache=False)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What gcsfs raises, as an error of the operating system that names the path."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except Exception as error:
        reason = first_line(error)
        code = errno.EACCES if "forbidden" in reason.lower() else errno.EIO
        raise OSError(code, reason, str(path)) from error
