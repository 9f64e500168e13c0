# SPDX-License-Identifier: Apache-2.0
"""The software and the devices that results come from."""

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax

PACKAGES = ("ncjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a result needs beside it to be made again.

    Attributes:
        versions: of Python and of the packages that decide numbers.
        commit: `git describe` of the source code, with `-dirty` where it was changed; None: installed without git.
        device: number and kind of the devices of all processes, and the CPU cores of this machine.
    """

    versions: Mapping[str, str]
    commit: str | None
    device: str


def environment() -> Environment:
    """The environment of this process; it starts JAX's devices."""
    devices = jax.devices()
    return Environment(
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        commit=_commit(),
        device=f"{len(devices)} x {devices[0].device_kind} ({jax.default_backend()}), {os.cpu_count()} CPU cores",
    )


def _commit() -> str | None:
    source = Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
    except OSError:
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None
