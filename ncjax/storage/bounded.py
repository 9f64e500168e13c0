# SPDX-License-Identifier: Apache-2.0
"""Limits on what a file of a stranger may take: they are checked before its content is read or inflated."""

import stat
from pathlib import Path

from ncjax.errors import UserError
from ncjax.storage.memory import machine_bytes

DEFLATE = 1032  # bytes that a byte of a deflate stream can become at most


def check_size(file: Path, most: int) -> None:
    """Refuses a file of more than `most` bytes.

    Raises:
        UserError: it is larger, is not there, or is a folder, a pipe or a device.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{file} cannot be read: it is no plain file")
    if found.st_size > most:
        raise UserError(
            f"{file} holds {found.st_size} bytes, more than the {most} that such a file has; give the right file"
        )


def read_bounded(file: Path, most: int) -> bytes:
    """The content of a file of `most` bytes or fewer.

    Raises:
        UserError: it is larger, or cannot be read.
    """
    check_size(file, most)
    try:
        with file.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def check_memory(wanted: int, what: str, remedy: str) -> None:
    """Refuses what does not fit the memory of this machine.

    Args:
        wanted: bytes.
        what: begins the message.
        remedy: ends it.

    Raises:
        UserError: `wanted` is more than the machine has.
    """
    machine = machine_bytes()
    if wanted > machine:
        needed, there = (f"{count / 2**30:,.1f} GiB" for count in (wanted, machine))
        raise UserError(f"{what} takes {needed}, but this machine has {there}; {remedy}")


def check_inflated(promised: int, stored: int, what: str) -> None:
    """Refuses a deflate stream of `stored` bytes that is said to hold more than it can.

    Raises:
        UserError: it cannot hold `promised` bytes.
    """
    if promised > DEFLATE * (stored + 1):
        raise UserError(f"{what} promises {promised} bytes, but {stored} bytes cannot hold them; fetch it again")
