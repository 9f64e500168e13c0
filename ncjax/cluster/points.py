# SPDX-License-Identifier: Apache-2.0
"""The points of a k-means problem, read in chunks and summed over devices."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Key

from ncjax.ops.memory import CACHE, chunk_numbers

CACHED_ROWS = 8192  # of a chunk on CPUs at most
BLOCK = 64  # points are drawn in two steps: a block, then a point of it


class Points(NamedTuple):
    """The points of one problem, or one device's shard of them.

    Each chunk is centred and scaled when it is read, so there is no second copy; its dtype is that of the centre.
    """

    rows: Float[Array, "n d"]
    weights: Float[Array, "n"]
    centre: Float[Array, "d"] | None  # subtracted; None: rows are centred and scaled
    scale: Float[Array, ""]  # a power of two, multiplied after that: the largest number is about 1
    length: Int32[Array, ""]  # rows up to the last of positive weight; the padding behind it is not read

    @property
    def dtype(self) -> Any:
        """Of what is read."""
        return self.rows.dtype if self.centre is None else self.centre.dtype


def make_points(
    rows: Float[Array, "n d"], weights: Float[Array, "n"], axis_name: str | None, dtype: Any = jnp.float32
) -> Points:
    """Points with their weighted mean as centre; one of them is subtracted before they are summed."""
    count = weights.shape[0]
    length = jnp.where(weights > 0, jnp.arange(1, count + 1, dtype=jnp.int32), 0).max()
    weights, one = weights.astype(dtype), jnp.ones((), dtype)
    centre = _any_row(rows.astype(dtype), weights > 0, axis_name)
    points = Points(rows, weights, centre, one, length)

    def update(_: Array, x: Array, w: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return carry[0] + w @ x, jnp.maximum(carry[1], jnp.abs(x).max())

    zero = jnp.zeros_like(centre), jnp.zeros((), dtype)
    total, largest = fold_chunks(points, 1, update, zero)
    centre += sum_over_devices(total, axis_name) / sum_over_devices(weights.sum(), axis_name)
    return points._replace(centre=centre, scale=_power_of_two(max_over_devices(largest, axis_name)))


def _any_row(rows: Array, counted: Array, axis_name: str | None) -> Float[Array, "d"]:
    """A row that counts: the first of every device that has one, averaged."""
    known = counted.any().astype(rows.dtype)
    return sum_over_devices(known * rows[counted.argmax()], axis_name) / sum_over_devices(known, axis_name)


def _power_of_two(largest: Float[Array, ""]) -> Float[Array, ""]:
    """A power of two that brings a number to between 1/2 and 1; 1 for 0."""
    exponent = jnp.clip(jnp.frexp(largest)[1], -100, 100)
    return jnp.ldexp(jnp.ones_like(largest), -exponent)


def subsample(
    key: Key[Array, ""],
    points: Points,
    count: int,
    axis_name: str | None,
    chances: Float[Array, "n"] | None = None,
) -> Points:
    """About `count` rows of all devices, drawn at random, the same on every device; all rows where they are fewer.

    One row is drawn from each of `count` equal shares of the sum of the chances, so no order of the rows matters. The
    weights make sums over the sample unbiased.

    Args:
        key: the same on every device.
        points: of which those of weight 0 are not drawn.
        count: rows of the sample.
        axis_name: mesh axis over which the points are sharded; the sample is not sharded.
        chances: in proportion to which rows are drawn, 0 where the weight is 0; None: the weights.
    """
    if axis_name is None and count >= points.rows.shape[0]:
        return points
    chances = points.weights if chances is None else chances
    shares = (jnp.arange(count) + jax.random.uniform(key, (count,), points.dtype)) / count
    index = draw_at(shares[None, :], chances[None, :], axis_name)[0]
    density = take_entries(chances, index, axis_name) * (count / sum_over_devices(chances.sum(), axis_name))
    weights = take_entries(points.weights, index, axis_name) / jnp.where(density > 0, density, jnp.inf)
    return Points(take_rows(points, index, axis_name), weights, None, points.scale, jnp.int32(count))


def draw_at(shares: Float[Array, "r t"], chances: Float[Array, "r n"], axis_name: str | None) -> Int32[Array, "r t"]:
    """Global indices of the rows at which the cumulative chance passes these shares, in [0, 1), of the sum of all.

    The cumulative chance is summed in blocks, so it is exact for many points too.
    """
    r, n = chances.shape
    blocks = jnp.pad(chances, ((0, 0), (0, -n % BLOCK))).reshape(r, -1, BLOCK)
    sums = gather_over_devices(blocks.sum(axis=2), axis_name)
    ends = jnp.cumsum(sums, axis=1)
    targets = shares * ends[:, -1:]
    block = _first_above(ends, targets)
    before = jnp.take_along_axis(ends - sums, block, axis=1)
    local = block - first_row_index(blocks.shape[1], axis_name)
    mine = (local >= 0) & (local < blocks.shape[1])
    inside = jnp.take_along_axis(blocks, jnp.clip(local, 0, blocks.shape[1] - 1)[:, :, None], axis=1)
    inner = jnp.cumsum(inside.reshape(-1, BLOCK), axis=1)
    offset = _first_above(inner, (targets - before).reshape(-1, 1)).reshape(shares.shape)
    index = first_row_index(n, axis_name) + jnp.minimum(local * BLOCK + offset, n - 1)
    return sum_over_devices(jnp.where(mine, index, 0), axis_name)


def _first_above(ends: Float[Array, "r m"], targets: Float[Array, "r t"]) -> Int32[Array, "r t"]:
    """Per row and target: the first index at which the cumulative chance exceeds the target, or all but reaches it."""
    most = ends[:, -1:] * (1 - jnp.finfo(ends.dtype).eps)  # rounding may leave a target above the end
    method = "compare_all" if ends.shape[1] * targets.size <= chunk_numbers() else "scan"
    found = jax.vmap(partial(jnp.searchsorted, side="right", method=method))(ends, jnp.minimum(targets, most))
    return jnp.minimum(found, ends.shape[1] - 1)


def fold_chunks(points: Points, columns: int, update: Callable[..., Any], init: Any) -> Any:
    """Fold `update(index of the first row, rows, weights, carry)` over chunks of centred and scaled rows.

    Rows of weight 0 are 0. A chunk is small enough that `columns` numbers a row fit `chunk_numbers`. The last chunk
    starts early enough to be full; rows that the chunk before has read get weight 0 in it. On CPUs padding at the end
    is not read; on accelerators the number of chunks is known to the compiler, so that no step waits for the host.
    """
    count, d = points.rows.shape
    size = chunk_rows(count, d, columns)
    if size == count:
        return update(jnp.int32(0), centred_rows(points), points.weights, init)

    def step(i: Array, carry: Any) -> Any:
        first = jnp.minimum(i * size, count - size)
        rows = lax.dynamic_slice_in_dim(points.rows, first, size)
        weights = lax.dynamic_slice_in_dim(points.weights, first, size)
        centred = centred_rows(points._replace(rows=rows, weights=weights))
        fresh = first + jnp.arange(size, dtype=jnp.int32) >= i * size
        return update(first, centred, jnp.where(fresh, weights, 0.0), carry)

    cached = chunk_numbers() == CACHE
    return lax.fori_loop(0, (points.length + size - 1) // size if cached else -(-count // size), step, init)


def chunk_rows(count: int, d: int, columns: int) -> int:
    """Rows of a chunk of `count` rows; on accelerators chunks are of equal size."""
    numbers = chunk_numbers()
    most = max(128, numbers // max(columns, d))
    if numbers == CACHE:
        return min(count, CACHED_ROWS, most)
    chunks = -(-count // most)
    return min(count, -(-count // (128 * chunks)) * 128)


def sum_over_devices(local: Array, axis_name: str | None) -> Array:
    """The sum over the devices that share the points."""
    return local if axis_name is None else lax.psum(local, axis_name)


def max_over_devices(local: Array, axis_name: str | None) -> Array:
    """The largest number of all devices."""
    return local if axis_name is None else lax.pmax(local, axis_name)


def gather_over_devices(local: Array, axis_name: str | None) -> Array:
    """The devices' arrays, concatenated along the last axis."""
    return local if axis_name is None else lax.all_gather(local, axis_name, axis=local.ndim - 1, tiled=True)


def centred_rows(points: Points) -> Float[Array, "n d"]:
    """The rows minus the centre, scaled; rows of weight 0 are 0."""
    if points.centre is None:
        return points.rows
    centred = (points.rows - points.centre[None, :]) * points.scale
    return jnp.where(points.weights[:, None] > 0, centred, 0.0)


def centre_if_small(points: Points) -> Points:
    """Points that fit a chunk are centred and scaled once, in memory, instead of at every read."""
    return points if points.rows.size > chunk_numbers() else points._replace(rows=centred_rows(points), centre=None)


def device_count(axis_name: str | None) -> int:
    """Devices that share the points."""
    return 1 if axis_name is None else int(lax.psum(1, axis_name))


def first_row_index(count: int, axis_name: str | None) -> Int32[Array, ""]:
    """Global index of this device's first row, where every device has `count` rows."""
    return jnp.int32(0) if axis_name is None else lax.axis_index(axis_name).astype(jnp.int32) * count


def take_rows(points: Points, index: Int32[Array, "*i"], axis_name: str | None) -> Float[Array, "*i d"]:
    """Centred and scaled rows by their global index over all devices."""
    local, mine = _local(index.reshape(-1), points.rows.shape[0], axis_name)
    rows = points.rows[local]
    if points.centre is not None:
        rows = (rows - points.centre[None, :]) * points.scale
    return sum_over_devices(jnp.where(mine[:, None], rows, 0.0), axis_name).reshape(*index.shape, -1)


def take_entries(values: Float[Array, "n"], index: Int32[Array, "t"], axis_name: str | None) -> Float[Array, "t"]:
    """Numbers by their global index over all devices."""
    local, mine = _local(index, values.shape[0], axis_name)
    return sum_over_devices(jnp.where(mine, values[local], 0.0), axis_name)


def _local(index: Array, count: int, axis_name: str | None) -> tuple[Array, Array]:
    """Where global indices lie on this device, and which of them do."""
    local = index - first_row_index(count, axis_name)
    return jnp.clip(local, 0, count - 1), (local >= 0) & (local < count)


def squared_norms(vectors: Float[Array, "*i d"]) -> Float[Array, "*i"]:
    """Squared lengths."""
    return (vectors**2).sum(axis=-1)


def sum_of_squares(points: Points, axis_name: str | None) -> Float[Array, ""]:
    """The sum of weighted squared distances to the centre."""
    zero = jnp.zeros((), points.dtype)
    total = fold_chunks(points, 1, lambda _, x, w, carry: carry + w @ squared_norms(x), zero)
    return sum_over_devices(total, axis_name)
