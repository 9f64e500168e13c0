# SPDX-License-Identifier: Apache-2.0
"""Meshes of devices: `("member", "data")` for training, `("rows",)` for what is measured on features."""

from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, PartitionSpec

from ncjax.config import MeshConfig
from ncjax.distributed.threads import check_threads, reserve_threads
from ncjax.errors import UserError

MEMBER_BATCH = PartitionSpec("member", "data")
MEMBER = PartitionSpec("member")
DATA = PartitionSpec("data")
REPLICATED = PartitionSpec()
ROWS = "rows"  # the only axis of `row_mesh`


def mesh_shape(config: MeshConfig, found: int) -> tuple[int, int]:
    """Devices along `member` and `data`.

    Args:
        config: devices along each axis; 0 for one of them: all that are left.
        found: number of devices.
    """
    return config.member or max(1, found // config.data), config.data or max(1, found // config.member)


def make_mesh(config: MeshConfig, batch: int) -> Mesh:
    """A mesh with the axes `("member", "data")` over all devices of all processes, or over the first of one process.

    Args:
        config: devices along each axis; 0 for one of them: all that are left.
        batch: global batch of one member.

    Raises:
        UserError: more devices are asked for than there are, a process would be left without work, the batch does not
            divide evenly, or CPU devices have too few threads.
    """
    reserve_threads()
    devices = jax.devices()
    found = len(devices)
    member, data = mesh_shape(config, found)
    wanted = member * data
    if wanted > found:
        raise UserError(
            f"mesh of {member} x {data} needs {wanted} devices, but {found} {jax.default_backend()} found; "
            "lower mesh.member or mesh.data"
        )
    if wanted < found and jax.process_count() > 1:
        raise UserError(
            f"mesh of {member} x {data} uses {wanted} of the {found} devices of {jax.process_count()} processes; "
            "set mesh.member and mesh.data so that all are used (0: all that are left)"
        )
    if batch % data:
        raise UserError(f"mesh.data is {data}, but must be a divisor of optim.batch = {batch}")
    check_threads(devices[:wanted])
    return Mesh(_arranged(devices[:wanted], (member, data), whole=wanted == found), ("member", "data"))


def row_mesh(config: MeshConfig) -> Mesh | None:
    """A mesh with the axis `("rows",)` over as many devices as the run's mesh has; None where that is one device.

    All devices are used where there are fewer than the config asks for, or several processes.

    Raises:
        UserError: CPU devices have too few threads.
    """
    reserve_threads()
    devices = jax.devices()
    member, data = mesh_shape(config, len(devices))
    wanted = len(devices) if jax.process_count() > 1 else min(member * data, len(devices))
    check_threads(devices[:wanted])
    return Mesh(np.array(devices[:wanted]), (ROWS,)) if wanted > 1 else None


def _arranged(devices: list[Any], shape: tuple[int, int], *, whole: bool) -> np.ndarray:
    """Devices in a grid: neighbours in the machine are neighbours in the grid, where all of them are used."""
    if not whole:
        return np.array(devices).reshape(shape)
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
