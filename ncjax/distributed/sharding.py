# SPDX-License-Identifier: Apache-2.0
"""How arrays are sharded over the axes of a mesh, and functions that run on each shard."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree, Shaped

from ncjax.distributed.mesh import MEMBER, REPLICATED, ROWS
from ncjax.distributed.processes import to_host


def padded_count(members: int, mesh: Mesh) -> int:
    """Members including the padding: the smallest multiple of the mesh's `member` axis that holds them."""
    return -(-members // mesh.shape["member"]) * mesh.shape["member"]


def member_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of each leaf of an ensemble's state: its leading axis over `member`; scalars are replicated."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, MEMBER if leaf.ndim else REPLICATED), tree)


def parameter_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """`member_sharding` with each leaf `[s ...]` sharded over `data` too, on its largest axis that divides evenly."""

    def sharding(leaf: Any) -> NamedSharding:
        size = mesh.shape["data"]
        axes = [axis for axis in range(1, leaf.ndim) if leaf.shape[axis] % size == 0]
        spec: list[str | None] = ["member"] * min(leaf.ndim, 1) + [None] * max(leaf.ndim - 1, 0)
        if axes:
            spec[max(axes, key=lambda axis: leaf.shape[axis])] = "data"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, tree)


def put(tree: PyTree, shardings: PyTree | NamedSharding) -> PyTree:
    """Host arrays on the mesh.

    Args:
        tree: whole arrays, the same on every process; each process copies the shards of its own devices.
        shardings: one for each leaf, or one for all.
    """

    def one(array: Any, sharding: NamedSharding) -> jax.Array:
        content = np.asarray(array)
        return jax.make_array_from_callback(content.shape, sharding, lambda part: content[part])

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda array: one(array, shardings), tree)
    return jax.tree.map(one, tree, shardings)


def shard_rows(array: Shaped[np.ndarray, "..."], mesh: Mesh | None, axis: int = 0) -> Shaped[Array, "..."]:
    """A host array with one axis sharded over all devices; each device gets its part alone.

    Args:
        array: the same on every process.
        mesh: of `row_mesh`; None: the array is copied to one device, without padding.
        axis: the axis that is sharded, padded with 0 to a multiple of the devices.
    """
    if mesh is None:
        return jnp.asarray(array)
    missing = -array.shape[axis] % mesh.size
    whole = np.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)]) if missing else array
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, ROWS))
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def shard_read(
    read: Callable[[slice], np.ndarray], shape: tuple[int, ...], mesh: Mesh | None, axis: int = 0
) -> Shaped[Array, "..."]:
    """`shard_rows` of an array that is read: each process reads the parts of its own devices alone.

    Args:
        read: gives a part of the array, by a slice of its axis.
        shape: of the whole; the axis is a multiple of the devices.
        mesh: of `row_mesh`; None: one device.
        axis: the axis that is sharded.
    """
    if mesh is None:
        return jnp.asarray(read(slice(0, shape[axis])))
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, ROWS))
    return jax.make_array_from_callback(shape, sharding, lambda part: read(part[axis] if part else slice(None)))


def gather_rows(parts: Sequence[tuple[Any, Int[np.ndarray, "_"]]], mesh: Mesh | None) -> Float[Array, "p n d"]:
    """Some rows of each of several arrays, as long as the longest, padded with 0.

    Args:
        parts: arrays `[_ d]`, in memory or on disk, with the numbers of the rows that are wanted.
        mesh: devices that axis 1 is sharded over, padded to a multiple of them; each process reads its own rows. None:
            one device.
    """
    longest = max(len(chosen) for _, chosen in parts)
    devices = mesh.size if mesh else 1
    shape = len(parts), -(-longest // devices) * devices, parts[0][0].shape[1]

    def read(part: slice) -> np.ndarray:
        start, stop, _ = part.indices(shape[1])
        found = np.zeros((len(parts), stop - start, shape[2]), np.float32)
        for row, (rows, chosen) in zip(found, parts, strict=True):
            wanted = chosen[start:stop]
            if len(wanted):
                row[: len(wanted)] = rows[wanted]
        return found

    return shard_read(read, shape, mesh, axis=1)


def to_first_device(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Small results of all devices, whole on the first device of each process."""
    return tree if mesh is None else jax.tree.map(jnp.asarray, to_host(tree))


def shard_map(
    function: Callable[..., Any], *, axis_names: frozenset[str] = frozenset(), **specs: Any
) -> Callable[..., Any]:
    """`jax.shard_map`, or its name before JAX 0.7, without its check of replication.

    Args:
        function: of the shards of one device.
        axis_names: axes of the mesh that are manual inside the function; none: all.
        specs: mesh, in_specs and out_specs.
    """
    if hasattr(jax, "shard_map"):
        return jax.shard_map(function, axis_names=axis_names, check_vma=False, **specs)
    from jax.experimental import shard_map as module

    older: Any = module.shard_map
    others = frozenset(specs["mesh"].axis_names) - axis_names if axis_names else frozenset()
    return older(function, auto=others, check_rep=False, **specs)
