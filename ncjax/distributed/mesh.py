# SPDX-License-Identifier: Apache-2.0
"""The devices of a run, and where each array of an ensemble lies on them."""

from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ncjax.config import MeshConfig
from ncjax.distributed.sharding import mesh_shape
from ncjax.errors import UserError

MEMBER_BATCH = PartitionSpec("member", "data")
MEMBER = PartitionSpec("member")
DATA = PartitionSpec("data")
EVERYWHERE = PartitionSpec()


def make_mesh(config: MeshConfig, batch: int) -> Mesh:
    """A mesh with the axes `("member", "data")` over all devices of all processes, or over the first of one process.

    Args:
        config: how many devices along each axis; 0 for one of them: as many as there are.
        batch: global batch of one member.

    Raises:
        UserError: more devices are asked for than there are, a process would be left without work, or the batch does
            not divide evenly.
    """
    devices = jax.devices()
    found = len(devices)
    member, data = mesh_shape(config, found)
    wanted = member * data
    if wanted > found:
        raise UserError(
            f"mesh of {member} x {data} needs {wanted} devices, but {found} {jax.default_backend()} found; "
            "lower --mesh.member or --mesh.data"
        )
    if wanted < found and jax.process_count() > 1:
        raise UserError(
            f"mesh of {member} x {data} uses {wanted} of the {found} devices of {jax.process_count()} processes; "
            "set --mesh.member and --mesh.data so that all are used (0: all that are left)"
        )
    if batch % data:
        raise UserError(f"mesh.data is {data}, but must be a divisor of optim.batch = {batch}")
    return Mesh(_arranged(devices[:wanted], (member, data), whole=wanted == found), ("member", "data"))


def _arranged(devices: list[Any], shape: tuple[int, int], *, whole: bool) -> np.ndarray:
    """Devices in a grid: neighbours in the machine are neighbours in the grid, where all of them are used."""
    if not whole:
        return np.array(devices).reshape(shape)
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def places(members: int, mesh: Mesh) -> int:
    """Members with those that fill up the last row of the mesh: the smallest multiple of its `member` axis."""
    return -(-members // mesh.shape["member"]) * mesh.shape["member"]


def member_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """For each leaf of an ensemble's state the sharding of its leading member axis; scalars lie everywhere."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, MEMBER if leaf.ndim else EVERYWHERE), tree)


def parameter_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """`member_sharding` with each leaf `[s ...]` spread over `data` too, on its largest axis that divides evenly."""

    def sharding(leaf: Any) -> NamedSharding:
        size = mesh.shape["data"]
        axes = [axis for axis in range(1, leaf.ndim) if leaf.shape[axis] % size == 0]
        spec: list[str | None] = ["member"] * min(leaf.ndim, 1) + [None] * max(leaf.ndim - 1, 0)
        if axes:
            spec[max(axes, key=lambda axis: leaf.shape[axis])] = "data"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, tree)


def put(tree: PyTree, shardings: PyTree | NamedSharding) -> PyTree:
    """Host arrays on the mesh; every process holds the whole array and feeds the parts of its own devices."""

    def one(array: Any, sharding: NamedSharding) -> jax.Array:
        content = np.asarray(array)
        return jax.make_array_from_callback(content.shape, sharding, lambda part: content[part])

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda array: one(array, shardings), tree)
    return jax.tree.map(one, tree, shardings)
