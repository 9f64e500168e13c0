# SPDX-License-Identifier: Apache-2.0
"""The devices of a run in one row, with examples spread over them: for all that is measured on features."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from ncjax.config import MeshConfig
from ncjax.distributed.processes import to_host

ROWS = "rows"  # the only axis of the mesh


def mesh_shape(config: MeshConfig, found: int) -> tuple[int, int]:
    """Devices along `member` and `data`, where 0 stands for all that are left of those found."""
    return config.member or max(1, found // config.data), config.data or max(1, found // config.member)


def row_mesh(config: MeshConfig) -> Mesh | None:
    """As many devices as the run has, or all, where there are fewer or several processes; None where that is one."""
    devices = jax.devices()
    member, data = mesh_shape(config, len(devices))
    wanted = len(devices) if jax.process_count() > 1 else min(member * data, len(devices))
    return Mesh(np.array(devices[:wanted]), (ROWS,)) if wanted > 1 else None


def shard_rows(array: Shaped[np.ndarray, "..."], mesh: Mesh | None, axis: int = 0) -> Shaped[Array, "..."]:
    """An array of the host with one axis spread over all devices, each of which gets its part alone.

    Args:
        array: the same on every process.
        mesh: with the axis "rows"; none: the array goes to one device, as it is.
        axis: that is spread, filled up with 0 to a multiple of the devices.
    """
    if mesh is None:
        return jnp.asarray(array)
    missing = -array.shape[axis] % mesh.size
    whole = np.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)]) if missing else array
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, ROWS))
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def to_first(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Small results of all devices on the first device of each process."""
    return tree if mesh is None else jax.tree.map(jnp.asarray, to_host(tree))


def shard_map(
    function: Callable[..., Any], *, axis_names: frozenset[str] = frozenset(), **specs: Any
) -> Callable[..., Any]:
    """`jax.shard_map`, or its name before JAX 0.7, without its check of replication.

    Args:
        function: of what each device has.
        axis_names: of the mesh that the function knows of; none: all.
        specs: mesh, in_specs and out_specs.
    """
    if hasattr(jax, "shard_map"):
        return jax.shard_map(function, axis_names=axis_names, check_vma=False, **specs)
    from jax.experimental import shard_map as module

    older: Any = module.shard_map
    others = frozenset(specs["mesh"].axis_names) - axis_names if axis_names else frozenset()
    return older(function, auto=others, check_rep=False, **specs)
