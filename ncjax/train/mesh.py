# SPDX-License-Identifier: Apache-2.0
"""The devices of a run, and where each array of an ensemble lies on them."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ncjax.config import MeshConfig
from ncjax.errors import UserError

MEMBER_BATCH = PartitionSpec("member", "data")
MEMBER = PartitionSpec("member")
EVERYWHERE = PartitionSpec()


def make_mesh(config: MeshConfig, members: int) -> Mesh:
    """A mesh with the axes `("member", "data")` over the first devices.

    Raises:
        UserError: more devices are asked for than there are, or the members do not divide evenly.
    """
    wanted, found = config.member * config.data, jax.device_count()
    if wanted > found:
        raise UserError(
            f"mesh of {config.member} x {config.data} needs {wanted} devices, but {found} {jax.default_backend()} "
            "found; lower --mesh.member or --mesh.data"
        )
    if members % config.member:
        raise UserError(f"mesh.member is {config.member}, but must divide the {members} members of this run")
    return Mesh(np.array(jax.devices()[:wanted]).reshape(config.member, config.data), ("member", "data"))


def member_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """For each leaf of an ensemble's state the sharding of its leading member axis; scalars lie everywhere."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, MEMBER if leaf.ndim else EVERYWHERE), tree)
