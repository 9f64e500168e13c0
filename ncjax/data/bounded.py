# SPDX-License-Identifier: Apache-2.0
"""Limits on what a file of a stranger may take: they are checked before its content is read or inflated."""

import os
from pathlib import Path

from ncjax.errors import UserError

DEFLATE = 1032  # bytes that a byte of a deflate stream can become at most


def read_bounded(file: Path, most: int) -> bytes:
    """The content of a file of `most` bytes or fewer.

    Raises:
        UserError: it is larger, or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise UserError(f"{file} holds more than {most} bytes, which no such file does; give the right file")
    return content


def check_memory(wanted: int, what: str, remedy: str) -> None:
    """Refuses what does not fit the memory of this machine.

    Args:
        wanted: bytes.
        what: begins the message.
        remedy: ends it.

    Raises:
        UserError: `wanted` is more than the machine has.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > machine:
        raise UserError(
            f"{what} takes {wanted / 2**30:,.1f} GiB, but this machine has {machine / 2**30:,.1f}; {remedy}"
        )


def check_inflated(promised: int, stored: int, what: str) -> None:
    """Refuses a deflate stream of `stored` bytes that is said to hold more than it can.

    Raises:
        UserError: it cannot hold `promised` bytes.
    """
    if promised > DEFLATE * (stored + 1):
        raise UserError(f"{what} promises {promised} bytes, but {stored} bytes cannot hold them; fetch it again")
