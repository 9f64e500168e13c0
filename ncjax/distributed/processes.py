# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: how they join, who writes, and how they agree. One process alone needs none of it."""

import inspect
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from ncjax.errors import Stopped, UserError

EXPLICIT = ("NCJAX_COORDINATOR", "NCJAX_PROCESSES", "NCJAX_PROCESS")
LOST_SECS = 30  # without a sign of life of a process, after which the others end
MESSAGE_BYTES = 1024


def initialise() -> None:
    """Join the processes of a run; called before any device is touched.

    Environment: `NCJAX_DISTRIBUTED=auto` (Slurm, TPU pods, Kubernetes: found by JAX), or `NCJAX_COORDINATOR=HOST:PORT`
    with `NCJAX_PROCESSES=N` and `NCJAX_PROCESS=I`; none of them: this process is alone. `NCJAX_DEVICES=TOTAL` is what
    the launcher promised; `NCJAX_JOIN_SECONDS` is how long processes wait for each other (300).

    Raises:
        UserError: the environment is incomplete, or there are fewer or more devices.
        Stopped: the processes did not find each other; they may when the same command is given again. Where one does
            not come at all, JAX ends the others by SIGABRT.
    """
    arguments = _arguments()
    if arguments is not None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        known = inspect.signature(jax.distributed.initialize).parameters  # JAX 0.6 has no heartbeat_timeout_seconds
        patience = _number("NCJAX_JOIN_SECONDS", 300)
        arguments |= {"initialization_timeout": patience}
        arguments |= {"heartbeat_timeout_seconds": LOST_SECS} if "heartbeat_timeout_seconds" in known else {}
        if "process_id" in arguments:  # JAX ends a process that waits in vain, with a stack of its own
            who = "process {process_id} of {num_processes} waits for the others at {coordinator_address}"
            print(f"ncjax: {who.format(**arguments)}, at most {patience} s", file=sys.stderr, flush=True)
        try:
            jax.distributed.initialize(**arguments)
        except ValueError as error:
            raise UserError(f"the processes of this run cannot join ({_first_line(error)})") from error
        except RuntimeError as error:
            raise Stopped(f"the processes of this run did not find each other ({_first_line(error)})") from error
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX took it, for a service of its own
    _check_devices()


def _arguments() -> dict[str, Any] | None:
    given = [name for name in EXPLICIT if os.environ.get(name)]
    if given:
        missing = [name for name in EXPLICIT if name not in given]
        if missing:
            raise UserError(f"{given[0]} is set, but {missing[0]} is not; set all of {', '.join(EXPLICIT)}")
        processes, process = _number("NCJAX_PROCESSES"), _number("NCJAX_PROCESS")
        if not 0 <= process < processes:
            raise UserError(f"NCJAX_PROCESS is {process}, but must be from 0 to NCJAX_PROCESSES - 1 = {processes - 1}")
        coordinator = os.environ["NCJAX_COORDINATOR"]
        if not coordinator.rpartition(":")[2].isdigit():
            raise UserError(f"NCJAX_COORDINATOR is {coordinator!r}, but must be HOST:PORT")
        return {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    way = os.environ.get("NCJAX_DISTRIBUTED", "")
    if way not in ("", "auto"):
        raise UserError(f"NCJAX_DISTRIBUTED is {way!r}, but must be auto, or not set")
    return {} if way else None


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "")
    if not text and default is not None:
        return default
    if not text.isdigit():
        raise UserError(f"{name} is {text!r}, but must be a whole number")
    return int(text)


def _check_devices() -> None:
    if not os.environ.get("NCJAX_DEVICES"):
        return
    promised, found = _number("NCJAX_DEVICES"), jax.device_count()
    if promised != found:
        counts = Counter(device.process_index for device in jax.devices())
        each = ", ".join(f"{count} on process {process}" for process, count in sorted(counts.items()))
        raise UserError(
            f"NCJAX_DEVICES promises {promised} devices, but {found} {jax.default_backend()} found ({each}); "
            "is a host, a process or a driver missing?"
        )


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_main_process() -> bool:
    """Whether this process writes files and prints: process 0, or the only one."""
    return not is_distributed() or jax.process_index() == 0


def on_main_process(write: Callable[[], object]) -> None:
    """Do something on process 0 alone, while the others wait.

    Raises:
        UserError: on every process, when process 0 meets one or an OSError.
    """
    if not is_distributed():
        write()
        return
    message = ""
    if is_main_process():
        try:
            write()
        except UserError as error:
            message = str(error)
        except OSError as error:
            message = f"{error.filename}: {error.strerror}"
    message = broadcast_message(message)
    if message:
        raise UserError(message)


def broadcast_message(message: str) -> str:
    """What process 0 says, on every process."""
    if not is_distributed():
        return message
    encoded = message.encode()[:MESSAGE_BYTES]
    sent = np.frombuffer(encoded.ljust(MESSAGE_BYTES, b"\0"), np.uint8)
    heard = multihost_utils.broadcast_one_to_all(sent)
    return np.asarray(heard, np.uint8).tobytes().rstrip(b"\0").decode(errors="ignore")


def on_any_process(flags: tuple[bool, ...]) -> tuple[bool, ...]:
    """Each flag, when it is up on any process."""
    if not is_distributed():
        return flags
    return tuple(map(bool, multihost_utils.process_allgather(np.array(flags)).any(axis=0)))


def to_host(tree: PyTree) -> PyTree:
    """Arrays of the mesh as whole NumPy arrays, on every process."""
    return jax.tree.map(_whole, tree)


def _whole(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM or SIGINT has come; a second one ends the process as ever.

    SIGTERM is also what Slurm, Kubernetes and a machine that is taken away send beforehand.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def take(number: int, _: FrameType | None) -> None:
        came.append(number)
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {name: signal.signal(name, take) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def lost_peer(error: BaseException) -> bool:
    """Whether an error of this process comes from another one that ended or cannot be reached."""
    return is_distributed() and (isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error))


def leave(code: int) -> None:
    """End this process at once where it is one of several: the others would wait for it in vain, and notice."""
    if is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
