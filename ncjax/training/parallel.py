# SPDX-License-Identifier: Apache-2.0
"""A function of one member, for all members of an ensemble."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import PyTree

from ncjax.distributed.mesh import MEMBER, REPLICATED
from ncjax.distributed.sharding import shard_map

T = TypeVar("T", bound=PyTree)  # of the members: each leaf has the leading axis `s`
Shared = TypeVar("Shared", bound=PyTree)
Result = TypeVar("Result", bound=PyTree)


def map_members(
    mesh: Mesh,
    function: Callable[[T, Shared], Result],
    members: T,
    shared: Shared,
    *,
    sequential: bool = False,
    at_once: int = 0,
) -> Result:
    """`function(member, shared)` for every member; rows of the mesh exchange nothing.

    Args:
        mesh: of the run; its axis `member` spreads the members.
        function: of one member.
        members: what differs between members, with the leading axis `s`.
        shared: the same for all members.
        sequential: compute one member after another instead of all at once, on a mesh of one device.
        at_once: members of a device that are computed together, so that they fit its memory; 0: all.

    Returns:
        The results with the leading axis `s`.
    """
    if sequential:
        return lax.map(lambda member: function(member, shared), members)

    def row(members: T, shared: Shared) -> Result:
        if 0 < at_once < jax.tree.leaves(members)[0].shape[0]:
            return lax.map(lambda member: function(member, shared), members, batch_size=at_once)
        return jax.vmap(function, in_axes=(0, None))(members, shared)

    if mesh.size == 1:
        return row(members, shared)
    sharded = shard_map(
        row, axis_names=frozenset({"member"}), mesh=mesh, in_specs=(MEMBER, REPLICATED), out_specs=MEMBER
    )
    return sharded(members, shared)
