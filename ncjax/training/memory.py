# SPDX-License-Identifier: Apache-2.0
"""The memory that the members of a run take at least, estimated from shapes before anything is allocated."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ncjax.distributed.sharding import padded_count
from ncjax.errors import UserError
from ncjax.storage.memory import machine_bytes
from ncjax.training.state import Spec, shapes_of_variables


def check_memory_of_members(spec: Spec, members: int) -> None:
    """Refuses members whose weights, gradients and optimizer alone do not fit the devices.

    What fits may still be too large: activations are not counted. Devices that do not say how much memory they have
    are not checked.

    Args:
        spec: of the run; its mesh says how members are spread.
        members: of the run.

    Raises:
        UserError: they do not fit.
    """
    memory, shape = memory_of(spec.mesh.local_devices), spec.mesh.shape
    on_a_device = padded_count(members, spec.mesh) // shape["member"] * member_bytes(spec)
    wanted = on_a_device * memory.devices // (shape["data"] if spec.config.mesh.shard_params else 1)
    if memory.limit and wanted > memory.limit:
        network, needed, there = spec.functions.network, *(f"{n / 2**30:,.1f} GiB" for n in (wanted, memory.limit))
        width = f" with model.width {spec.config.model.width}" if network.width else ""
        raise UserError(
            f"{members} members of {network.name}{width} take {needed} or more for weights, gradients and optimizer, "
            f"but {memory.where} has {there}; take a smaller network, or fewer members"
        )


class Memory(NamedTuple):
    """A memory that devices of this process use.

    Attributes:
        limit: bytes; 0: not known.
        devices: how many of them share it.
        where: for messages.
    """

    limit: int
    devices: int
    where: str


def memory_of(devices: Sequence[Any]) -> Memory:
    """The memory of each of some devices of one kind; that of processors is the machine's."""
    if devices[0].platform == "cpu":
        return Memory(machine_bytes(), len(devices), "this machine")
    limit = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
    return Memory(limit, 1, f"a device ({devices[0].device_kind})")


def member_bytes(spec: Spec) -> int:
    """Bytes of the weights, their gradient, the batch statistics and the optimizer of one member."""
    variables = shapes_of_variables(spec.functions.network, spec.image_shape, spec.classes)

    def optimizer(params: PyTree) -> PyTree:
        return spec.functions.optimizer(jnp.float32(0.1), jnp.float32(0.0)).init(params)

    made = jax.eval_shape(optimizer, variables.params)
    arrays = jax.tree.leaves((variables.params, variables.params, variables.batch_stats, made))
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)
