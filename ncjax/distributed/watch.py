# SPDX-License-Identifier: Apache-2.0
"""Says which program waits, where nothing ends for minutes."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

SILENT_SECS = 300.0  # before the first line; each later one comes after twice the time
HINT = "where it never does, two Ctrl-C end it, and the same command goes on from the last checkpoint"
_running: list[tuple[str, float]] = []  # names and starts, of which the last is watched


@contextmanager
def watched(program: str) -> Iterator[None]:
    """Writes a line to stderr each time that the block has taken 5, 10, 20, ... minutes; it ends nothing.

    Args:
        program: what the block waits for, such as `steps 1 to 64`.
    """
    _start()
    entry = (program, time.monotonic())
    _running.append(entry)
    try:
        yield
    finally:
        _running.remove(entry)


@cache
def _start() -> None:
    threading.Thread(target=_watch, name="ncjax-watch", daemon=True).start()


def _watch() -> None:
    said, due = ("", 0.0), SILENT_SECS
    while True:
        time.sleep(SILENT_SECS / 20)
        entry = next(iter(_running[-1:]), None)
        if entry is None:
            continue
        if entry is not said:
            said, due = entry, SILENT_SECS
        secs = time.monotonic() - entry[1]
        if secs >= due:
            due = 2 * due
            print(f"\nncjax: {_message(entry[0], secs)}", file=sys.stderr, flush=True)


def _message(program: str, secs: float) -> str:
    waited = f"{secs / 60:.0f} minutes" if secs >= 120 else f"{secs:.0f} s"
    return f"process {os.getpid()} has waited for {waited} for {program} to end; {HINT}"
