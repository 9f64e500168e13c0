# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM: a training stops at a checkpoint, all else within seconds, also inside a long compilation.

Python calls its handlers between two of its instructions, and a compilation is one of them. A command therefore has a
thread that learns of each signal at once (`signal.set_wakeup_fd`), and ends the process where Python does not come to
it. What ncjax writes is whole at every moment, so that nothing is lost but the work since the last checkpoint.
"""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ncjax.errors import Stopped

STOPPED = 75  # EX_TEMPFAIL
INTERRUPTED = 130
AGAIN = "the same command goes on from the last checkpoint"
GRACE_SECS = 8.0  # for all but the steps and checkpoints of a training
TICK_SECS = 0.1
ECHO_SECS = 1.0  # SIGTERM comes twice where it is sent to a process and to its group, as timeout(1) does
NUMBERS = (signal.SIGTERM, signal.SIGINT)
_patient = threading.Event()  # steps or a checkpoint of a training are under way


@contextmanager
def ends_on_signals() -> Iterator[None]:
    """For commands: SIGTERM raises Stopped, SIGINT KeyboardInterrupt; after 8 s without an end the process is ended.

    Exit codes are then 75 and 130. A second signal ends the process at once. Steps and checkpoints of a training
    (`patience`) may take their time after the first one.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers: list[int] = []
    stopped = threading.Event()

    def terminated(number: int, frame: FrameType | None) -> None:
        if not stopped.is_set():  # the thread ends a process that is told again
            stopped.set()
            raise Stopped("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, terminated)
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, numbers), name="ncjax-signals", daemon=True)
    watch.start()
    try:
        yield
    finally:
        if not numbers:  # else the thread sees to it that the process ends
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGTERM, before)
            writer.close()
            watch.join()


def _watch(reader: socket.socket, numbers: list[int]) -> None:
    while not numbers:
        content = reader.recv(1)
        if not content:
            reader.close()
            return
        numbers += [number for number in content if number in NUMBERS]
    came, left = time.monotonic(), GRACE_SECS
    if _patient.is_set() and numbers[0] == signal.SIGINT:
        _say("stops after these steps, with a checkpoint; another Ctrl-C ends it at once")
    reader.settimeout(TICK_SECS)
    while left > 0:
        try:
            again = reader.recv(1)
        except TimeoutError:
            left = GRACE_SECS if _patient.is_set() else left - TICK_SECS
            continue
        if not again:  # the command has ended
            reader.close()
            return
        if again[0] in NUMBERS and _insists(again[0], time.monotonic() - came):
            _end(again[0], "interrupted twice")
    _end(numbers[0], "interrupted" if numbers[0] == signal.SIGINT else "stopped by SIGTERM")


def _insists(number: int, secs: float) -> bool:
    """Whether a signal so long after the first one is more than its echo."""
    return number == signal.SIGINT or secs > ECHO_SECS


def _end(number: int, why: str) -> None:
    _say(f"{why}; {AGAIN}")
    os._exit(INTERRUPTED if number == signal.SIGINT else STOPPED)


def _say(text: str) -> None:
    """Past the buffers and locks of sys.stderr, which another thread may hold."""
    os.write(2, f"\nncjax: {text}\n".encode())


@contextmanager
def patience() -> Iterator[None]:
    """A first signal to a command waits for the end of this block, however long it takes."""
    _patient.set()
    try:
        yield
    finally:
        _patient.clear()


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM or SIGINT has been received; a second signal ends the process as usual.

    Slurm, Kubernetes and machines about to be preempted send SIGTERM. A signal that is ignored stays ignored. A request
    that the block does not answer with `Stopped` acts at the end of the block as it would have without it. Outside the
    main thread the function always gives False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[tuple[int, float]] = []

    def take(number: int, _: FrameType | None) -> None:
        if not received:
            received.append((number, time.monotonic()))
        elif _insists(number, time.monotonic() - received[0][1]):
            _restore(before)
            _act(number, before[number])

    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in NUMBERS}
    before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, take)
    answered = False
    try:
        yield lambda: bool(received)
    except Stopped:
        answered = True
        raise
    finally:
        _restore(before)
        if received and not answered:
            _act(received[0][0], before[received[0][0]])


def _restore(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _act(number: int, handler: Any) -> None:
    """What a signal does with a handler; one of Python is called, for a raised signal would count as a second one."""
    if callable(handler):
        handler(number, None)
    else:
        signal.raise_signal(number)


def end_with_parent() -> None:
    """Waits for the end of the process that started this one, and ends it too: for a thread of its own.

    It would compute on, or wait for what nobody sends.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
