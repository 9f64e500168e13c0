# SPDX-License-Identifier: Apache-2.0
"""The points of a k-means problem, read a chunk at a time and added up over devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

HIGHEST = lax.Precision.HIGHEST
CHUNK_FLOATS = 2**20  # of a chunk of points, and of its distances to all centroids: both stay in the cache
CHUNK_ROWS = 8192
MEAN_ROWS = 1024


class Points(NamedTuple):
    """The points of one problem, or one device's part of them."""

    rows: Float[Array, "n d"]
    weights: Float[Array, "n"]
    centre: Float[Array, "d"] | None  # taken off the rows chunk by chunk: no second copy; None: they are centred
    present: Int32[Array, ""]  # rows up to the last of positive weight; those behind it are not read


def make_points(rows: Float[Array, "n d"], weights: Float[Array, "n"], axis: str | None) -> Points:
    """Centred at their weighted mean: summed without the offset, which is taken off first by that of a few points."""
    count = weights.shape[0]
    present = jnp.where(weights > 0, jnp.arange(1, count + 1, dtype=jnp.int32), 0).max()
    centre, points = jnp.zeros(rows.shape[1], rows.dtype), Points(rows, weights, None, present)
    for part in (spread_rows(points, MEAN_ROWS, axis), points):
        part = part._replace(centre=centre)
        total, mass = read_chunks(
            part, 1, lambda _, x, w, seen: (seen[0] + w @ x, seen[1] + w.sum()), (jnp.zeros_like(centre), 0.0)
        )
        centre = centre + add_up(total, axis) / add_up(mass, axis)
    return points._replace(centre=centre)


def spread_rows(points: Points, count: int, axis: str | None) -> Points:
    """As many rows, evenly spaced over the present ones of all devices; all of them where there are no more."""
    rows = points.rows.shape[0]
    size = min(rows, -(-count // device_count(axis)))
    if size == rows:
        return points
    index = (jnp.arange(size) * (points.present.astype(jnp.float32) / size)).astype(jnp.int32)
    return points._replace(rows=points.rows[index], weights=points.weights[index], present=jnp.int32(size))


def read_chunks(points: Points, columns: int, read: Callable[..., Any], start: Any) -> Any:
    """Fold `read(first row, chunk, its weights, carry)` over the chunks, centred, absent points at 0.

    Chunks are so small that `columns` numbers a point fit the budget. The last one begins early enough to be whole;
    what was read before has weight 0 there.
    """
    count, d = points.rows.shape
    size = min(count, CHUNK_ROWS, max(128, CHUNK_FLOATS // max(columns, d)))

    if size == count:
        return read(jnp.int32(0), centred_rows(points), points.weights, start)

    def step(i: Array, carry: Any) -> Any:
        first = jnp.minimum(i * size, count - size)
        rows = lax.dynamic_slice_in_dim(points.rows, first, size)
        weights = lax.dynamic_slice_in_dim(points.weights, first, size)
        centred = centred_rows(points._replace(rows=rows, weights=weights))
        fresh = first + jnp.arange(size, dtype=jnp.int32) >= i * size
        return read(first, centred, jnp.where(fresh, weights, 0.0), carry)

    return lax.fori_loop(0, (points.present + size - 1) // size, step, start)


def add_up(local: Array, axis: str | None) -> Array:
    """The sum over devices."""
    return local if axis is None else lax.psum(local, axis)


def gather(local: Array, axis: str | None) -> Array:
    """The devices' arrays, one behind the other along the last axis."""
    return local if axis is None else lax.all_gather(local, axis, axis=local.ndim - 1, tiled=True)


def centred_rows(points: Points) -> Float[Array, "n d"]:
    """The rows minus the centre, those of weight 0 at 0."""
    if points.centre is None:
        return points.rows
    return jnp.where(points.weights[:, None] > 0, points.rows - points.centre[None, :], 0.0)


def settle(points: Points) -> Points:
    """Few points are centred once and for all."""
    return (
        points
        if points.rows.size > CHUNK_FLOATS
        else Points(centred_rows(points), points.weights, None, points.present)
    )


def device_count(axis: str | None) -> int:
    """Devices that share the points."""
    return 1 if axis is None else int(lax.psum(1, axis))


def first_place(count: int, axis: str | None) -> Int32[Array, ""]:
    """The place of this device's first row among all rows, of which every device has `count`."""
    return jnp.int32(0) if axis is None else lax.axis_index(axis).astype(jnp.int32) * count


def take_rows(points: Points, index: Int32[Array, "*i"], axis: str | None) -> Float[Array, "*i d"]:
    """Centred rows by their place among all rows of all devices."""
    local = index - first_place(points.rows.shape[0], axis)
    mine = (local >= 0) & (local < points.rows.shape[0])
    rows = points.rows[jnp.clip(local, 0, points.rows.shape[0] - 1).reshape(-1)]
    rows = rows if points.centre is None else rows - points.centre[None, :]
    return add_up(jnp.where(mine.reshape(-1, 1), rows, 0.0), axis).reshape(*index.shape, -1)


def squared_norms(vectors: Float[Array, "*i d"]) -> Float[Array, "*i"]:
    """Squared lengths."""
    return (vectors**2).sum(axis=-1)


def energy(points: Points, axis: str | None) -> Float[Array, ""]:
    """The sum of the weighted squared distances to the centre."""
    zero = jnp.zeros((), points.rows.dtype)
    return add_up(read_chunks(points, 1, lambda _, x, w, seen: seen + w @ squared_norms(x), zero), axis)
