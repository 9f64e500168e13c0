# SPDX-License-Identifier: Apache-2.0
"""Sums of the rows of each cluster on GPUs: rows are grouped by cluster, so that no sum is written twice."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float, Int32

from ncjax.ops.pallas import compiled_with, padded_width

BLOCK = 512  # labels that are compared with each other
ROWS = 32  # that a program reads at once
PROGRAMS = 4096  # about so many; a large cluster is shared by several


def segment_sums(
    rows: Float[Array, "n d"], weights: Float[Array, "n"], labels: Int32[Array, "n"], k: int
) -> tuple[Float[Array, "k d"], Float[Array, "k"]]:
    """The weighted sum of the rows of each label, and the sum of their weights, the same bits at every call.

    Each row is read once, in the order of the labels: `4 n d` bytes.
    """
    sums, mass = sequential_vmap(partial(_segment_sums, k=k))(rows, weights, labels)
    return sums, mass


def _segment_sums(rows: Array, weights: Array, labels: Array, *, k: int) -> tuple[Array, Array]:
    from jax.experimental import pallas as pl

    d, shares = rows.shape[1], max(1, min(64, PROGRAMS // k))
    width, inputs = padded_width(d), (*group_by_label(labels, k), weights, rows)
    sums, mass = pl.pallas_call(
        partial(_kernel, shares=shares),
        grid=(k, shares),
        in_specs=[pl.BlockSpec(array.shape, lambda j, s, n=array.ndim: (0,) * n) for array in inputs],
        out_specs=[
            pl.BlockSpec((1, 1, width), lambda j, s: (j, s, 0)),
            pl.BlockSpec((1, 1), lambda j, s: (j, s)),
        ],
        out_shape=[jax.ShapeDtypeStruct((k, shares, *size), jnp.float32) for size in ((width,), ())],
        name="segment_sums",
        **compiled_with(warps=4, stages=2),
    )(*inputs)
    return sums.sum(axis=1)[:, :d], mass.sum(axis=1)


def group_by_label(labels: Int32[Array, "n"], k: int) -> tuple[Int32[Array, "k"], Int32[Array, "k"], Int32[Array, "n"]]:
    """Where the rows of each label start and end in the order of the labels, and that order, a stable one.

    A counting sort: labels are counted in blocks, and within a block each is compared with those before it. XLA's sort
    takes seconds to compile, and orders by comparing.
    """
    n, block = len(labels), jnp.arange(len(labels), dtype=jnp.int32) // BLOCK
    counts = jnp.zeros((-(-n // BLOCK), k), jnp.int32).at[block, labels].add(1)
    upto = jnp.cumsum(counts, axis=0, dtype=jnp.int32)
    ends = jnp.cumsum(upto[-1], dtype=jnp.int32)
    starts = ends - upto[-1]
    blocks = jnp.pad(labels, (0, -n % BLOCK), constant_values=-1).reshape(-1, BLOCK)
    before = jnp.tril(jnp.ones((BLOCK, BLOCK), bool), -1)[None]
    rank = (before & (blocks[:, :, None] == blocks[:, None, :])).sum(axis=2, dtype=jnp.int32).reshape(-1)[:n]
    place = starts[labels] + (upto - counts)[block, labels] + rank
    return starts, ends, jnp.zeros(n, jnp.int32).at[place].set(jnp.arange(n, dtype=jnp.int32), unique_indices=True)


def _kernel(starts: Any, ends: Any, order: Any, weights: Any, rows: Any, sums: Any, mass: Any, *, shares: int) -> None:
    """A share of the rows of one cluster."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    j, share, width = pl.program_id(0), pl.program_id(1), sums.shape[2]
    start, end = starts[j], ends[j]
    lanes, column = jnp.arange(ROWS, dtype=jnp.int32), jnp.arange(width, dtype=jnp.int32)

    def add(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        place = start + (i * shares + share) * ROWS + lanes
        present = place < end
        row = triton.load(order.at[place], mask=present, other=0)
        weight = triton.load(weights.at[row], mask=present, other=0.0)
        own = present[:, None] & (column[None, :] < rows.shape[1])
        values = triton.load(rows.at[row[:, None], column[None, :]], mask=own, other=0.0)
        return carry[0] + (weight[:, None] * values).sum(axis=0), carry[1] + weight

    trips = (end - start + ROWS * shares - 1) // (ROWS * shares)
    total, weight = lax.fori_loop(0, trips, add, (jnp.zeros(width, jnp.float32), jnp.zeros(ROWS, jnp.float32)))
    sums[0, 0, :] = total
    mass[0, 0] = weight.sum()
