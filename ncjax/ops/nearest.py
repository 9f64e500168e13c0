# SPDX-License-Identifier: Apache-2.0
"""The nearest centroids of points in one kernel on GPUs, which never writes the distances of all to all.

Products are of float16 with sums in float32: a number is the sum of two halves, `high + low / 2^12`, and the three
products that count give what float32 gives. One product, of the high halves alone, is as exact as float16.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float, Float16, Int32

from ncjax.ops.pallas import compiled_with, padded_width

LOW = 2.0**12  # what the low half of a number is multiplied by
TILE = 64  # centroids that a program reads at once


class Nearest(NamedTuple):
    """The nearest centroid of each point; its score `|c|^2 / 2 - x c` and that of the second nearest."""

    label: Int32[Array, "*r n"]
    first: Float[Array, "*r n"]
    second: Float[Array, "*r n"]


def nearest_centroids(rows: Float[Array, "n d"], centroids: Float[Array, "k d"], halves: int = 2) -> Nearest:
    """The nearest centroid of each row, of equal ones the first.

    `2 n d k` operations of float16 for each of the products, three for two halves.

    Args:
        rows: of numbers up to 2^15.
        centroids: of any size.
        halves: 2: products as exact as those of float32; 1: of float16, and the first stands in place of the second.
    """
    found: Nearest = sequential_vmap(partial(_nearest_centroids, halves=halves))(rows, centroids)
    return found


def _nearest_centroids(rows: Array, centroids: Array, *, halves: int) -> Nearest:
    from jax.experimental import pallas as pl

    (n, d), (k, _), width = rows.shape, centroids.shape, padded_width(rows.shape[1])
    block = 128 if width <= 128 else 64
    programs = -(-n // block)
    unit = _power_of_two(jnp.abs(centroids).max())
    parts = [jnp.pad(part, ((0, -k % TILE), (0, width - d))) for part in _split(centroids * unit, halves)]
    half = jnp.pad((centroids**2).sum(axis=1) / 2, (0, -k % TILE), constant_values=jnp.inf)
    whole = [pl.BlockSpec(array.shape, lambda i, n=array.ndim: (0,) * n) for array in (half, unit[None], *parts)]
    types = (jnp.int32, jnp.float32, jnp.float32)[: halves + 1]
    found = pl.pallas_call(
        partial(_kernel, n=n, d=d),
        grid=(programs,),
        in_specs=[pl.BlockSpec((block, width), lambda i: (i, 0)), *whole],
        out_specs=[pl.BlockSpec((block,), lambda i: (i,))] * len(types),
        out_shape=[jax.ShapeDtypeStruct((programs * block,), dtype) for dtype in types],
        name="nearest_centroids",
        **compiled_with(warps=8, stages=2 if halves == 2 else 3),
    )(rows, half, 1 / unit[None], *parts)
    found = [values[:n] for values in found]
    return Nearest(found[0], found[1], found[-1])


def _kernel(rows: Any, half: Any, scale: Any, *refs: Any, n: int, d: int) -> None:
    """One block of points, and all centroids, tile after tile."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    parts = [ref for ref in refs if ref.ndim == 2]
    outputs, (block, width) = refs[len(parts) :], rows.shape
    row = pl.program_id(0) * block + jnp.arange(block, dtype=jnp.int32)
    inside = (row[:, None] < n) & (jnp.arange(width, dtype=jnp.int32)[None, :] < d)
    halves = _split(triton.load(rows, mask=inside, other=0.0), len(parts))
    number = jnp.arange(TILE, dtype=jnp.int32)[None, :]

    def tile(j: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        own = pl.ds(j * TILE, TILE)
        scores = half[own][None, :] - scale[0] * _product(halves, [part[own, :] for part in parts])
        least, index = scores.min(axis=1), scores.argmin(axis=1).astype(jnp.int32)
        label = jnp.where(least < carry[1], index + j * TILE, carry[0])
        found = label, jnp.minimum(carry[1], least)
        if len(carry) == 2:
            return found
        others = jnp.where(number == index[:, None], jnp.inf, scores).min(axis=1)
        return *found, jnp.minimum(jnp.maximum(carry[1], least), jnp.minimum(carry[2], others))

    far = jnp.full(block, jnp.inf, jnp.float32)
    start = (jnp.zeros(block, jnp.int32), far, far)[: len(outputs)]
    for output, values in zip(outputs, jax.lax.fori_loop(0, half.shape[0] // TILE, tile, start), strict=True):
        output[...] = values


def _product(rows: list[Array], centroids: list[Array]) -> Float[Array, "b t"]:
    """`x c` from the halves of both; the product of the low halves is below the rounding of float32."""

    def product(a: Array, b: Array) -> Array:
        return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)

    high = product(rows[0], centroids[0])
    if len(rows) == 1:
        return high
    return high + (product(rows[0], centroids[1]) + product(rows[1], centroids[0])) / LOW


def _split(numbers: Float[Array, "i d"], halves: int) -> list[Float16[Array, "i d"]]:
    """The high halves of numbers, and the low ones where there are two."""
    high = numbers.astype(jnp.float16)
    return [high, ((numbers - high.astype(jnp.float32)) * LOW).astype(jnp.float16)][:halves]


def _power_of_two(largest: Float[Array, ""]) -> Float[Array, ""]:
    """What brings a number to between 1/2 and 1; 1 for 0."""
    return jnp.ldexp(jnp.float32(1), -jnp.clip(jnp.frexp(largest)[1], -100, 100))
