# SPDX-License-Identifier: Apache-2.0
"""Reads examples larger than memory for the measures of collapse: two passes for several draws together."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from ncjax.collapse import programs
from ncjax.collapse.plan import Plan
from ncjax.collapse.programs import Functions, Network, Read
from ncjax.collapse.reading import Block, Labelled, Moments, drawn_blocks, gather_moments, subsample
from ncjax.collapse.statistics import ClassStatistics
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import to_first_device


def read_draws(
    plan: Plan,
    data: Labelled,
    draws: Float[np.ndarray, "r n"],
    means: ClassStatistics | None,
    beside: Network,
    mesh: Mesh | None,
) -> Read:
    """What the examples give in each draw, `[r ...]`.

    Args:
        plan: what is measured.
        data: features on disk.
        draws: how often each example counts.
        means: of the fine classes in each draw, which NC4 compares with; none: those of these examples.
        beside: what belongs to the network beside its examples.
        mesh: devices that each block is sharded over; none: one.
    """
    functions = plan.functions
    moments = gather_moments(data, draws, plan.fine, mesh)
    sums: tuple[PyTree, ...] = ()
    if functions.summed:
        parts = (
            to_host(_read_block(functions, block, counts, moments, means, beside))
            for block, counts in drawn_blocks(data, draws, mesh)
        )
        sums = next(parts)
        for part in parts:
            sums = jax.tree.map(np.add, sums, part)
    sampled: tuple[PyTree, ...] = ()
    if functions.of("subsample"):
        each = [_sampled(plan, data._replace(weights=draw), moments, i, beside, mesh) for i, draw in enumerate(draws)]
        sampled = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return Read(moments, sums, sampled)


@partial(jax.jit, static_argnames="functions")
def _read_block(
    functions: Functions,
    block: Block,
    counts: Float[Array, "r b"],
    moments: Moments,
    means: ClassStatistics | None,
    beside: Network,
) -> tuple[PyTree, ...]:
    def read(one: tuple[Array, Moments, ClassStatistics | None]) -> tuple[PyTree, ...]:
        draw, own, of_means = one
        return programs.read_block(functions, block._replace(weights=draw), own, of_means, beside)

    return lax.map(read, (counts, moments, means))


def _sampled(plan: Plan, data: Labelled, moments: Moments, draw: int, beside: Network, mesh: Mesh | None) -> Any:
    sample = subsample(data, np.asarray(plan.super_class)[data.fine], plan.coarse, mesh)
    fine = jax.tree.map(lambda leaf: leaf[draw], moments.fine)
    return to_first_device(programs.read_sample(plan.functions, sample, fine, beside.super_class), mesh)
