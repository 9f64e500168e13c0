# SPDX-License-Identifier: Apache-2.0
"""Peers measured alternately, each in a process of its own: a slow minute of the machine hits all alike."""

import importlib
import math
import multiprocessing
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ncjax.distributed.signals import end_with_parent
from ncjax.errors import first_line
from ncjax.events import stage

Timer = Callable[[], float]
T = TypeVar("T")
NO_TIME = "left out: the time for measuring speed was over"
AFRESH = {"JAX_ENABLE_COMPILATION_CACHE": "false", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}  # nobody finds programs


class Peer(NamedTuple):
    """How to measure one of those compared; it is sent to another process, so its function stands in a module."""

    make_timer: Callable[[], Timer]  # gets ready (data, compilation); the timer then returns one measured value a call
    imports: tuple[str, ...] = ()  # libraries whose own memory is not counted


class Measured(NamedTuple):
    """What one peer gave."""

    values: tuple[float, ...]  # one a round; none where it failed
    setup_secs: float  # from the libraries' import to the end of the first, unmeasured call
    peak_bytes: int  # on accelerators of the device's memory; else of the process, on top of its libraries
    error: str  # empty, or why it failed


def interleave(peers: Mapping[str, Peer], *, rounds: int, until: float = math.inf) -> dict[str, Measured]:
    """Start every peer, let each warm up alone, then call each once a round.

    Args:
        peers: by name; the first two are measured, the others where there is time.
        rounds: how often each is called.
        until: when to stop, of `time.monotonic`: no more peers are started when half of the time is over, nor rounds
            when all of it is; one round is always measured.
    """
    running = _start(peers, (time.monotonic() + until) / 2)
    values = _measure(running, rounds, until)
    found = {name: Measured((), 0.0, 0, NO_TIME) for name in peers}
    for name, (process, connection, ready) in running.items():
        peak = 0 if isinstance(ready, str) else _ask(connection, "end")
        process.join()
        errors = [answer for answer in (ready, peak, *values[name]) if isinstance(answer, str)]
        found[name] = (
            Measured((), 0.0, 0, errors[0]) if errors else Measured(tuple(values[name]), float(ready), int(peak), "")
        )
    return found


Running = tuple[BaseProcess, Connection, Any]  # the last is the seconds of its setup, or why it failed


def _start(peers: Mapping[str, Peer], until: float) -> dict[str, Running]:
    """The peers one after the other, each until it is ready."""
    context = multiprocessing.get_context("spawn")
    running: dict[str, Running] = {}
    with stage("prepare peers", total=len(peers)) as advance:
        for name, peer in peers.items():
            if time.monotonic() > until and sum(not isinstance(ready, str) for _, _, ready in running.values()) >= 2:
                break
            advance(0, name)
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=_serve, args=(theirs, peer), daemon=True)
            process.start()
            theirs.close()
            running[name] = (process, ours, _receive(ours))
            advance(1)
    return running


def _measure(running: Mapping[str, Running], rounds: int, until: float) -> dict[str, list[Any]]:
    """What each peer gave in each round."""
    values: dict[str, list[Any]] = {name: [] for name in running}
    able = {name: connection for name, (_, connection, ready) in running.items() if not isinstance(ready, str)}
    with stage("measure", total=rounds * len(able)) as advance:
        for number in range(rounds):
            if number and time.monotonic() > until:
                break
            for name, connection in able.items():
                advance(0, f"{name}, round {number + 1}/{rounds}")
                values[name].append(_ask(connection, "measure"))
                advance(1)
    return values


def mean_secs(call: Callable[[], T], least_secs: float) -> tuple[float, T]:
    """Mean seconds of as many calls as fill `least_secs`, and what the last one returned."""
    calls, started = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - started < least_secs:
        found, calls = call(), calls + 1
    return (time.perf_counter() - started) / calls, found


def _ask(connection: Connection, request: str) -> Any:
    try:
        connection.send(request)
    except OSError:
        return "its process ended"
    return _receive(connection)


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError:
        return "its process ended"


def _serve(connection: Connection, peer: Peer) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ |= AFRESH
    try:
        for name in peer.imports:
            importlib.import_module(name)
        before, started = _resident_bytes(), time.perf_counter()
        timer = peer.make_timer()
        timer()
        connection.send(time.perf_counter() - started)
        while connection.recv() == "measure":
            connection.send(timer())
        grown = _resident_bytes() - before
        connection.send(_device_bytes() or grown)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {first_line(error)}"[:300])


def _resident_bytes() -> int:
    """The most memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # the other way counts what the parent held when it started this process
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(peak)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _device_bytes() -> int:
    """The most memory that this process has used on an accelerator; 0 where it uses none."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    jax = sys.modules.get("jax")
    statistics = jax.local_devices()[0].memory_stats() if jax is not None and jax.default_backend() != "cpu" else None
    return int(statistics["peak_bytes_in_use"]) if statistics else 0
