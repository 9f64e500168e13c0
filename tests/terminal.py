# SPDX-License-Identifier: Apache-2.0
"""Commands in a pseudo-terminal and in a pipe, as recordings: what a person and what a file gets to see."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.runs import ROOT

COLUMNS, ROWS = 80, 40
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PROGRAM = "from ncjax.cli.main import main\nmain()"


class Session(NamedTuple):
    """A command that has ended.

    Attributes:
        code: exit code.
        out: stdout; in a terminal everything, without what moves the cursor.
        err: stderr; in a terminal empty.
        raw: what a terminal got.
    """

    code: int
    out: str
    err: str
    raw: str = ""

    @property
    def lines(self) -> list[str]:
        """What stood in a line of the terminal at any time."""
        return [line.rstrip() for line in re.split(r"[\r\n]+", self.out) if line.strip()]


def _environment(**more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("NPROC", "COLUMNS", "LINES", "NO_COLOR")}
    flags = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    return ours | flags | more


def _command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *map(str, arguments)]


def in_pipe(arguments: Sequence[object], cwd: Path, timeout: float = 240) -> Session:
    """`ncjax ARGUMENTS` with stdout and stderr in pipes."""
    done = subprocess.run(
        _command(arguments), cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=timeout
    )
    return Session(done.returncode, done.stdout, done.stderr)


def in_terminal(arguments: Sequence[object], cwd: Path, **variables: str) -> Session:
    """`ncjax ARGUMENTS` with stdout and stderr in a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(
        _command(arguments), cwd=cwd, env=_environment(**variables), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        raw = _read(ours).decode(errors="replace")
    os.close(ours)
    return Session(process.returncode, ESCAPE.sub("", raw), "", raw)


def _read(descriptor: int) -> bytes:
    """Everything until the other end is closed."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # of Linux, where the last process has left the terminal
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)
