# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: joining, the main process, collective decisions. Every function also works in one alone."""

import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree, Shaped

from ncjax.distributed.agreement import end_with_others
from ncjax.distributed.threads import reserve_threads
from ncjax.errors import Stopped, UserError, first_line

EXPLICIT = ("NCJAX_COORDINATOR", "NCJAX_PROCESSES", "NCJAX_PROCESS")
HEARTBEAT_SECS = 30  # without a heartbeat of a process, the others end
MESSAGE_BYTES = 1024


def initialize() -> None:
    """Joins the processes of a run (`jax.distributed.initialize`); called before any device is used.

    Environment: `NCJAX_DISTRIBUTED=auto` (Slurm, TPU pods, Kubernetes: detected by JAX), or
    `NCJAX_COORDINATOR=HOST:PORT` with `NCJAX_PROCESSES=N` and `NCJAX_PROCESS=I`; none of them: a single process.
    `NCJAX_DEVICES=TOTAL` is the number of devices that the launcher expects; `NCJAX_JOIN_SECONDS` is how long
    processes wait for each other (300).

    Raises:
        UserError: the environment is incomplete, or there are fewer or more devices.
        Stopped: the processes did not find each other; they may when the same command is started again. Where one
            never starts, JAX ends the others by SIGABRT.
    """
    reserve_threads()
    arguments = _arguments()
    if arguments is not None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        known = inspect.signature(jax.distributed.initialize).parameters  # JAX 0.6 has no heartbeat_timeout_seconds
        patience = _number("NCJAX_JOIN_SECONDS", 300)
        options: dict[str, Any] = {"initialization_timeout": patience}
        options |= {"heartbeat_timeout_seconds": HEARTBEAT_SECS} if "heartbeat_timeout_seconds" in known else {}
        if "process_id" in arguments:  # JAX ends a process that waits in vain, with a stack of its own
            who = "process {process_id} of {num_processes} waits for the others at {coordinator_address}"
            print(f"ncjax: {who.format(**arguments)}, at most {patience} s", file=sys.stderr, flush=True)
        try:
            jax.distributed.initialize(**arguments, **options)
        except ValueError as error:
            raise UserError(f"the processes of this run cannot join ({first_line(error)})") from error
        except RuntimeError as error:
            raise Stopped(f"the processes of this run did not find each other ({first_line(error)})") from error
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX replaced it, for a service of its own
        end_with_others()
    _check_devices()


def _arguments() -> Mapping[str, Any] | None:
    """Arguments of `jax.distributed.initialize`; None: a single process."""
    present = [name for name in EXPLICIT if os.environ.get(name)]
    if present:
        missing = [name for name in EXPLICIT if name not in present]
        if missing:
            raise UserError(f"{present[0]} is set, but {missing[0]} is not; set all of {', '.join(EXPLICIT)}")
        processes, process = _number("NCJAX_PROCESSES"), _number("NCJAX_PROCESS")
        if not 0 <= process < processes:
            raise UserError(f"NCJAX_PROCESS is {process}, but must be from 0 to NCJAX_PROCESSES - 1 = {processes - 1}")
        coordinator = os.environ["NCJAX_COORDINATOR"]
        if not coordinator.rpartition(":")[2].isdigit():
            raise UserError(f"NCJAX_COORDINATOR is {coordinator!r}, but must be HOST:PORT")
        return {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    mode = os.environ.get("NCJAX_DISTRIBUTED", "")
    if mode not in ("", "auto"):
        raise UserError(f"NCJAX_DISTRIBUTED is {mode!r}, but must be auto, or not set")
    return {} if mode else None


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
    """Calls a function on the main process alone, while the others wait.

    Raises:
        UserError: on every process, when the function raises a UserError or an OSError.
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
    """The main process's message, on every process; at most 1024 bytes of it."""
    if not is_distributed():
        return message
    encoded = message.encode()[:MESSAGE_BYTES]
    sent = np.frombuffer(encoded.ljust(MESSAGE_BYTES, b"\0"), np.uint8)
    received = multihost_utils.broadcast_one_to_all(sent)
    return np.asarray(received, np.uint8).tobytes().rstrip(b"\0").decode(errors="ignore")


def on_any_process(flags: tuple[bool, ...]) -> tuple[bool, ...]:
    """Whether each flag is true on any process (all-reduce with or)."""
    if not is_distributed():
        return flags
    return tuple(map(bool, multihost_utils.process_allgather(np.array(flags)).any(axis=0)))


def own_share(count: int) -> slice:
    """Which of `count` things this process takes, in order of the processes; alone: all."""
    if not is_distributed():
        return slice(0, count)
    size = -(-count // jax.process_count())
    first = min(count, jax.process_index() * size)
    return slice(first, min(count, first + size))


def gather_shares(share: Shaped[np.ndarray, "..."], count: int) -> Shaped[np.ndarray, "..."]:
    """The shares of all processes (`own_share`), one behind the other, on every process."""
    if not is_distributed():
        return share
    size = -(-count // jax.process_count())
    padded = np.zeros((size, *share.shape[1:]), share.dtype)
    padded[: len(share)] = share
    return np.concatenate(gather_each(padded))[:count]


def gather_each(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "p ..."]:
    """An array of every process, on every process; as bytes, for JAX would shorten float64."""
    if not is_distributed():
        return array[None]
    content = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(content))
    return np.frombuffer(every.tobytes(), array.dtype).reshape(jax.process_count(), *array.shape)


def sum_over_processes(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The sum of an array of every process, on every process."""
    return np.asarray(gather_each(array).sum(axis=0, dtype=array.dtype))


def to_host(tree: PyTree) -> PyTree:
    """Device arrays as whole NumPy arrays, on every process (all-gather)."""
    return jax.tree.map(_whole, tree)


def _whole(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def lost_peer(error: BaseException) -> bool:
    """Whether an error of this process was caused by another one that ended or cannot be reached."""
    return is_distributed() and (isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error))


def exit_immediately(code: int) -> None:
    """Ends this process without cleaning up where it is one of several, so that the others notice and do not wait."""
    if is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
