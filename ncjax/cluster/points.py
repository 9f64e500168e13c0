# SPDX-License-Identifier: Apache-2.0
"""The points of a k-means problem, read in chunks and summed over devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

CHUNK_FLOATS = 2**20  # of a chunk of points, and of its distances to all centroids: both stay in the cache
CHUNK_ROWS = 8192
MEAN_ROWS = 1024  # of the subsample whose mean is the first estimate of the centre


class Points(NamedTuple):
    """The points of one problem, or one device's shard of them."""

    rows: Float[Array, "n d"]
    weights: Float[Array, "n"]
    centre: Float[Array, "d"] | None  # subtracted from each chunk when it is read: no second copy; None: centred
    length: Int32[Array, ""]  # rows up to the last of positive weight; the padding behind it is not read


def make_points(rows: Float[Array, "n d"], weights: Float[Array, "n"], axis_name: str | None) -> Points:
    """Points with their weighted mean as centre; the mean of a subsample is subtracted before rows are summed."""
    count = weights.shape[0]
    length = jnp.where(weights > 0, jnp.arange(1, count + 1, dtype=jnp.int32), 0).max()
    centre, points = jnp.zeros(rows.shape[1], rows.dtype), Points(rows, weights, None, length)
    for part in (subsample(points, MEAN_ROWS, axis_name), points):
        part = part._replace(centre=centre)
        total, mass = fold_chunks(
            part, 1, lambda _, x, w, carry: (carry[0] + w @ x, carry[1] + w.sum()), (jnp.zeros_like(centre), 0.0)
        )
        centre = centre + sum_over_devices(total, axis_name) / sum_over_devices(mass, axis_name)
    return points._replace(centre=centre)


def subsample(points: Points, count: int, axis_name: str | None) -> Points:
    """`count` rows, evenly spaced over the rows of all devices but their padding; all rows where they are fewer."""
    rows = points.rows.shape[0]
    size = min(rows, -(-count // device_count(axis_name)))
    if size == rows:
        return points
    index = (jnp.arange(size) * (points.length.astype(jnp.float32) / size)).astype(jnp.int32)
    return points._replace(rows=points.rows[index], weights=points.weights[index], length=jnp.int32(size))


def fold_chunks(points: Points, columns: int, update: Callable[..., Any], init: Any) -> Any:
    """Fold `update(index of the first row, rows, weights, carry)` over chunks of centred rows.

    Rows of weight 0 are 0. A chunk is small enough that `columns` numbers a row fit the budget. The last chunk starts
    early enough to be full; rows that the chunk before has read get weight 0 in it.
    """
    count, d = points.rows.shape
    size = min(count, CHUNK_ROWS, max(128, CHUNK_FLOATS // max(columns, d)))

    if size == count:
        return update(jnp.int32(0), centred_rows(points), points.weights, init)

    def step(i: Array, carry: Any) -> Any:
        first = jnp.minimum(i * size, count - size)
        rows = lax.dynamic_slice_in_dim(points.rows, first, size)
        weights = lax.dynamic_slice_in_dim(points.weights, first, size)
        centred = centred_rows(points._replace(rows=rows, weights=weights))
        fresh = first + jnp.arange(size, dtype=jnp.int32) >= i * size
        return update(first, centred, jnp.where(fresh, weights, 0.0), carry)

    return lax.fori_loop(0, (points.length + size - 1) // size, step, init)


def sum_over_devices(local: Array, axis_name: str | None) -> Array:
    """The sum over the devices that share the points."""
    return local if axis_name is None else lax.psum(local, axis_name)


def gather_over_devices(local: Array, axis_name: str | None) -> Array:
    """The devices' arrays, concatenated along the last axis."""
    return local if axis_name is None else lax.all_gather(local, axis_name, axis=local.ndim - 1, tiled=True)


def centred_rows(points: Points) -> Float[Array, "n d"]:
    """The rows minus the centre; rows of weight 0 are 0."""
    if points.centre is None:
        return points.rows
    return jnp.where(points.weights[:, None] > 0, points.rows - points.centre[None, :], 0.0)


def centre_if_small(points: Points) -> Points:
    """Points that fit a chunk are centred once, in memory, instead of at every read."""
    return (
        points if points.rows.size > CHUNK_FLOATS else Points(centred_rows(points), points.weights, None, points.length)
    )


def device_count(axis_name: str | None) -> int:
    """Devices that share the points."""
    return 1 if axis_name is None else int(lax.psum(1, axis_name))


def first_row_index(count: int, axis_name: str | None) -> Int32[Array, ""]:
    """Global index of this device's first row, where every device has `count` rows."""
    return jnp.int32(0) if axis_name is None else lax.axis_index(axis_name).astype(jnp.int32) * count


def take_rows(points: Points, index: Int32[Array, "*i"], axis_name: str | None) -> Float[Array, "*i d"]:
    """Centred rows by their global index over all devices."""
    local = index - first_row_index(points.rows.shape[0], axis_name)
    mine = (local >= 0) & (local < points.rows.shape[0])
    rows = points.rows[jnp.clip(local, 0, points.rows.shape[0] - 1).reshape(-1)]
    rows = rows if points.centre is None else rows - points.centre[None, :]
    return sum_over_devices(jnp.where(mine.reshape(-1, 1), rows, 0.0), axis_name).reshape(*index.shape, -1)


def squared_norms(vectors: Float[Array, "*i d"]) -> Float[Array, "*i"]:
    """Squared lengths."""
    return (vectors**2).sum(axis=-1)


def sum_of_squares(points: Points, axis_name: str | None) -> Float[Array, ""]:
    """The sum of weighted squared distances to the centre."""
    zero = jnp.zeros((), points.rows.dtype)
    total = fold_chunks(points, 1, lambda _, x, w, carry: carry + w @ squared_norms(x), zero)
    return sum_over_devices(total, axis_name)
