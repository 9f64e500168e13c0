# SPDX-License-Identifier: Apache-2.0
"""Threads of XLA on CPUs: each device of a collective waits in one, and one more has to be left to compute."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ncjax.errors import UserError

POOL_SIZES = ("PJRT_NPROC", "NPROC")  # as XLA reads them, once, when JAX starts; older versions know the second alone
POOL = "tf_XLAEigen"  # the name of each thread of the pool
FAKE_DEVICES = re.compile(r"--xla_force_host_platform_device_count[= ](\d+)")
SEVERAL_PROCESSES = ("NCJAX_COORDINATOR", "NCJAX_DISTRIBUTED")


def reserve_threads() -> None:
    """Gives XLA's pool more threads than there are CPU devices, where it would have fewer; before JAX starts.

    The number of devices is that of `JAX_NUM_CPU_DEVICES`, `jax.config.jax_num_cpu_devices` and `XLA_FLAGS`. Nothing
    changes for one device of one process. JAX reads the environment when it starts; later calls have no effect.
    """
    devices, size = _configured_devices(), _pool_size()
    alone = devices == 1 and not any(os.environ.get(name) for name in SEVERAL_PROCESSES)
    if alone or size > devices:
        return
    for name in POOL_SIZES:
        if name == "NPROC" or name in os.environ:
            os.environ[name] = str(devices + 1)


def check_threads(devices: Sequence[Any]) -> None:
    """Refuses a mesh of CPU devices that would wait for each other for ever.

    Args:
        devices: all devices of the mesh.

    Raises:
        UserError: JAX has started with too few threads for those of this process.
    """
    import jax

    here = sum(device.process_index == jax.process_index() for device in devices)
    if len(devices) == 1 or devices[0].platform != "cpu" or (threads := _pool_threads()) > here:
        return
    raise UserError(
        f"{here} CPU devices need {here + 1} threads or more, but JAX has started with {threads}, where they wait for "
        f"each other for ever; set NPROC={here + 1} in the environment before JAX starts"
    )


def _configured_devices() -> int:
    counts = [1, _whole_number(os.environ.get("JAX_NUM_CPU_DEVICES", "")) or 0]
    counts += [int(count) for count in FAKE_DEVICES.findall(_xla_flags())[-1:]]
    if "jax" in sys.modules:
        counts.append(sys.modules["jax"].config.jax_num_cpu_devices)
    return max(counts)


def _xla_flags() -> str:
    """XLA_FLAGS, or the file that it names."""
    flags = os.environ.get("XLA_FLAGS", "")
    if not flags.strip() or flags.lstrip().startswith("-"):
        return flags
    try:
        return Path(flags.strip()).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _pool_size() -> int:
    """Threads of the pool of a JAX that starts now with one device."""
    sizes = [_whole_number(os.environ[name]) for name in POOL_SIZES if name in os.environ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return next((max(size, 1) for size in sizes if size is not None), cores)


def _whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _pool_threads() -> int:
    """Threads of the pool that this process has; where the system does not tell (outside Linux), what was asked for."""
    count = 0
    for task in Path("/proc/self/task").glob("*/comm"):
        try:
            count += task.read_text().startswith(POOL)
        except OSError:  # a thread that has just ended
            continue
    return count or max(_pool_size(), _configured_devices())
