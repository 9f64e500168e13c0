# SPDX-License-Identifier: Apache-2.0
"""A function in a process of its own, with a limit of time: what it holds of a device is free when it has ended."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from ncjax.distributed.signals import end_with_parent
from ncjax.errors import first_line


class Answer(NamedTuple):
    """What a function returned, or why it did not."""

    value: Any
    error: str


def run_limited(function: Callable[[], Any], limit_secs: float, variables: Mapping[str, str] | None = None) -> Answer:
    """Runs a function of a module in a new process; it may start processes of its own, which end with it.

    Args:
        function: sent to the process, as what it returns is sent back.
        limit_secs: when all of it is stopped.
        variables: of the environment, changed before anything is imported.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with _environment(variables or {}):
        process: BaseProcess = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, function))
        process.start()
    theirs.close()
    try:
        if not ours.poll(max(0.0, limit_secs)):
            return Answer(None, f"stopped after {limit_secs:.0f} s")
        answer: Answer = ours.recv()
        return answer
    except EOFError:
        return Answer(None, "its process ended")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, function: Callable[[], Any]) -> None:
    os.setsid()  # so that all its processes are ended together
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        answer = Answer(function(), "")
    except Exception as error:
        answer = Answer(None, f"{type(error).__name__}: {first_line(error)}"[:300])
    connection.send(answer)
