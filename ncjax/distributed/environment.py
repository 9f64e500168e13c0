# SPDX-License-Identifier: Apache-2.0
"""The software and the devices that results come from."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import jax

from ncjax.results import Environment

PACKAGES = ("ncjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def environment() -> Environment:
    """The environment of this process; it starts JAX's devices."""
    devices = jax.devices()
    return Environment(
        versions=versions(),
        commit=_commit(),
        device=f"{len(devices)} x {devices[0].device_kind} ({jax.default_backend()}), {os.cpu_count()} CPU cores",
    )


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on; starts no device."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _commit() -> str | None:
    source = Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
    except OSError:
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None
