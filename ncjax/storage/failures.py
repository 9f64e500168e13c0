# SPDX-License-Identifier: Apache-2.0
"""Why a file could not be written."""

import errno
import os
from pathlib import Path

from ncjax.buckets import BucketPath
from ncjax.errors import first_line

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL_WORDS = ("no space left", "quota exceeded")


def why_not_written(known: Path, error: BaseException) -> str:
    """An error of writing, and what to do about it where that can be found out; nothing is guessed.

    Args:
        known: a file or folder of the same place that was there before.
        error: of the operating system, or of a library that wraps one.

    Returns:
        The first line of the error with its cause.
    """
    reason, code, text = first_line(error), getattr(error, "errno", None), str(error).lower()
    if isinstance(known, BucketPath):
        return reason
    if not known.exists():
        return f"{reason}; {known} is gone: was it renamed or deleted?"
    if code in FULL or any(words in text for words in FULL_WORDS):
        return f"{reason}; the disk is full: make room"
    folder = known if known.is_dir() else known.parent
    if code in FORBIDDEN or "permission denied" in text or not os.access(folder, os.W_OK | os.X_OK):
        return f"{reason}; there is no right to write there"
    return reason


def place_of(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of the same name; None where there is none; in a bucket all are one."""
    if isinstance(folder, BucketPath):
        return 0, 0
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
