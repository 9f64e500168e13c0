# SPDX-License-Identifier: Apache-2.0
"""Initial centroids of k-means: greedy k-means++ (Arthur and Vassilvitskii 2007) or points drawn at random."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from ncjax.cluster.points import (
    Points,
    draw_at,
    first_row_index,
    fold_chunks,
    squared_norms,
    sum_over_devices,
    take_rows,
)
from ncjax.ops.products import matmul
from ncjax.ops.small_programs import branch


def kmeans_plus_plus(
    key: Key[Array, ""], points: Points, k: int, restarts: int, axis_name: str | None
) -> Float[Array, "r k d"]:
    """Greedy k-means++: of `2 + log k` candidates, drawn by squared distance to the nearest centroid, the best one."""
    r, n, d = restarts, *points.rows.shape
    shares = jax.random.uniform(key, (k, r, 2 + int(math.log(k))), points.dtype)

    def add(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, distances = carry
        drawn = draw_at(shares[j], _chances(points, distances, axis_name), axis_name)
        candidates = take_rows(points, drawn, axis_name)
        best = branch(
            j > 0,
            lambda: _candidate_inertia(points, candidates, distances, axis_name).argmin(axis=1).astype(jnp.int32),
            lambda: jnp.zeros(r, jnp.int32),
        )
        chosen = jnp.take_along_axis(candidates, best[:, None, None], axis=1)[:, 0]
        return centroids.at[:, j].set(chosen), _update_distances(points, chosen, distances)

    start = jnp.zeros((r, k, d), points.dtype), jnp.full((r, n), jnp.inf, points.dtype)
    return lax.fori_loop(0, k, add, start)[0]


def random_points(
    key: Key[Array, ""], points: Points, k: int, restarts: int, axis_name: str | None
) -> Float[Array, "r k d"]:
    """`k` different points for each restart, drawn by weight."""
    chances = jnp.broadcast_to(points.weights[None, :], (restarts, points.weights.shape[0]))
    count = points.weights.shape[0]
    indices = first_row_index(count, axis_name) + jnp.arange(count, dtype=jnp.int32)
    shares = jax.random.uniform(key, (k, restarts, 1), points.dtype)

    def add(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        index, chances = carry
        drawn = draw_at(shares[j], chances, axis_name)
        return index.at[:, j].set(drawn[:, 0]), jnp.where(indices[None, :] == drawn, 0.0, chances)

    index, _ = lax.fori_loop(0, k, add, (jnp.zeros((restarts, k), jnp.int32), chances))
    return take_rows(points, index, axis_name)


def _chances(points: Points, distances: Array, axis_name: str | None) -> Array:
    """Weighted squared distances; the weights where there is no centroid yet, or every point coincides with one."""
    present = points.weights[None, :] > 0
    chances = jnp.where(present, points.weights[None, :] * distances, 0.0)
    total = sum_over_devices(chances.sum(axis=1, keepdims=True), axis_name)
    return jnp.where((total > 0) & jnp.isfinite(total), chances, points.weights[None, :])


def _update_distances(points: Points, chosen: Array, distances: Array) -> Array:
    """Squared distances to the nearest centroid, after one more was chosen in each restart."""
    r, half = chosen.shape[0], squared_norms(chosen)[:, None] / 2

    def update(first: Array, x: Array, w: Array, carry: Array) -> Array:
        new = squared_norms(x)[None, :] + 2 * (half - matmul(chosen, x.T))
        old = lax.dynamic_slice(carry, (jnp.int32(0), first), new.shape)
        return lax.dynamic_update_slice(carry, jnp.minimum(old, jnp.maximum(new, 0.0)), (jnp.int32(0), first))

    return fold_chunks(points, r, update, distances)


def _candidate_inertia(points: Points, candidates: Array, distances: Array, axis_name: str | None) -> Array:
    """The inertia with each candidate added."""
    r, t, d = candidates.shape
    flat, half = candidates.reshape(r * t, d), squared_norms(candidates)[:, :, None] / 2

    def update(first: Array, x: Array, w: Array, carry: Array) -> Array:
        products = matmul(flat, x.T).reshape(r, t, -1)
        new = jnp.maximum(squared_norms(x)[None, None, :] + 2 * (half - products), 0.0)
        old = lax.dynamic_slice(distances, (jnp.int32(0), first), (r, x.shape[0]))
        return carry + (w[None, None, :] * jnp.minimum(old[:, None, :], new)).sum(axis=2)

    total = fold_chunks(points, r * t, update, jnp.zeros((r, t), candidates.dtype))
    return sum_over_devices(total, axis_name)
