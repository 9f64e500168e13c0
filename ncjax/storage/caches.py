# SPDX-License-Identifier: Apache-2.0
"""The user's cache folder, and the cache of compiled programs in it."""

import contextlib
import errno
import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path

import platformdirs

from ncjax.errors import UserError
from ncjax.storage.temporary import TemporaryFolder

MOST_BYTES = 2**30  # of compiled programs for one kind of processor; the oldest go first
_TEMPORARY: list[TemporaryFolder] = []  # at most one, for this process
OFF = {"0", "false", "f", "n", "no", "off"}  # as JAX reads its variables


def cache_folder() -> Path:
    """The folder `ncjax` in the user's cache folder: on Linux below `XDG_CACHE_HOME`, or else `~/.cache`; made here.

    Where it cannot be made or written, as in containers without a home folder, it is a temporary one of this process,
    and one line on stderr says so.

    Raises:
        UserError: no temporary folder can be made either.
    """
    try:
        folder = platformdirs.user_cache_path("ncjax")
        if not folder.is_absolute():
            raise RuntimeError
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        return _temporary_cache(f"{folder} cannot be written: {os.strerror(errno.EACCES)}")
    except RuntimeError:
        return _temporary_cache("there is no home folder")
    except OSError as error:
        return _temporary_cache(f"{folder} cannot be written: {error.strerror}")


def _temporary_cache(reason: str) -> Path:
    if not _TEMPORARY:
        try:
            _TEMPORARY.append(TemporaryFolder())
        except OSError as error:
            raise UserError(
                f"no cache folder ({reason}), nor a temporary one ({error.strerror}); set XDG_CACHE_HOME to a folder "
                "that can be written"
            ) from error
        print(
            f"ncjax: note: no cache folder ({reason}): using {_TEMPORARY[0].path} until this process ends; set "
            "XDG_CACHE_HOME to a folder that can be written to keep it",
            file=sys.stderr,
        )
    return _TEMPORARY[0].path


def is_temporary(folder: Path) -> bool:
    """Returns whether a cache folder is one that is deleted at the end of this process."""
    return any(folder == one.path for one in _TEMPORARY)


def keep_compiled_programs() -> None:
    """Caches compiled programs, for this process, those that it starts, and all later ones.

    For commands, before JAX is imported: JAX reads its settings from the environment. Nothing is done where it has been
    imported, or where its own variables decide: `JAX_COMPILATION_CACHE_DIR` names another folder,
    `JAX_ENABLE_COMPILATION_CACHE=false` turns it off. Where no folder can be written, one line on stderr says so.

    Nothing is cached on macOS: programs that jaxlib before 0.10 reads back can crash there.
    """
    chosen, enabled = os.environ.get("JAX_COMPILATION_CACHE_DIR"), os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "")
    if chosen or enabled.lower() in OFF or "jax" in sys.modules or sys.platform == "darwin":
        return
    try:
        folder = cache_folder() / "xla" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process drops them too
            _drop_oldest(folder, MOST_BYTES)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, f"{folder}: Permission denied")
    except (OSError, UserError) as error:
        reason = error if isinstance(error, UserError) else error.strerror
        print(f"ncjax: note: compiled programs are not cached: {reason}", file=sys.stderr)
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # On some processors jaxlib 0.9 and 0.10 log an error for each program that they read back, though it was compiled
    # there (openxla/xla#44565). What matters is raised as an exception too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A file that another process is just writing, or that a killed one left half-written, fails its checksum: JAX
    # compiles that program again and warns.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")


def _processor() -> str:
    """A name for this kind of processor: a program for another one may crash here, and home folders are shared."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()}"]
    names = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    described = sorted({line for line in lines if line.startswith(names)})
    return hashlib.sha256("\n".join([platform.machine(), *described]).encode()).hexdigest()[:12]


def _drop_oldest(folder: Path, most_bytes: int) -> None:
    """Delete the files that were written first, until the others fit."""
    total = 0
    for file in sorted(folder.glob("*-cache"), key=lambda path: path.stat().st_mtime, reverse=True):
        total += file.stat().st_size
        if total > most_bytes:
            file.unlink()
