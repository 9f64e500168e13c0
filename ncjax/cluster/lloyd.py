# SPDX-License-Identifier: Apache-2.0
"""Lloyd's algorithm for many restarts at once.

All restarts share each read of a chunk of points: one product gives the distances to the centroids of all restarts, a
second one, of the one-hot labels with the chunk that is still in the cache, gives the sums for their update.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ncjax.cluster.points import (
    Points,
    first_row_index,
    fold_chunks,
    gather_over_devices,
    squared_norms,
    sum_over_devices,
    take_rows,
)
from ncjax.ops.products import matmul

WIDTH = 4  # restarts that take a step together; the others wait until one of them has converged


class Restarts(NamedTuple):
    """The state of all restarts."""

    number: Int32[Array, "r"]
    centroids: Float[Array, "r k d"]  # of centred points
    inertia: Float[Array, "r"]  # from products: inexact where it is tiny against the variance of the points
    iterations: Int32[Array, "r"]
    converged: Bool[Array, "r"]


class ClusterSums(NamedTuple):
    """What one pass over the points gives."""

    sums: Float[Array, "r k d"]  # of the weighted points of each cluster
    mass: Float[Array, "r k"]  # sum of their weights
    inertia: Float[Array, "r"]


def make_restarts(centroids: Float[Array, "r k d"], iterations: Int32[Array, ""] | int = 0) -> Restarts:
    """Restarts at these centroids, after some iterations."""
    r = centroids.shape[0]
    return Restarts(
        jnp.arange(r, dtype=jnp.int32),
        centroids,
        jnp.full(r, jnp.inf, centroids.dtype),
        jnp.full(r, iterations, jnp.int32),
        jnp.zeros(r, bool),
    )


def best_restarts(restarts: Restarts, count: int) -> Restarts:
    """The restarts of least inertia, the earlier where only rounding tells two apart."""
    rounded = jnp.floor(jnp.log(jnp.maximum(restarts.inertia, jnp.finfo(restarts.inertia.dtype).tiny)) * 2e4)
    chosen = least(rounded, count)
    return jax.tree.map(lambda leaf: leaf[chosen], restarts)


def least(values: Float[Array, "m"], count: int) -> Int32[Array, "c"]:
    """Indices of the least numbers in their order, of equal ones the earlier first; nan is last."""
    return lax.top_k(-jnp.where(jnp.isnan(values), jnp.inf, values), count)[1]


def run_lloyd(
    points: Points,
    restarts: Restarts,
    limit: Float[Array, ""],
    max_iterations: Int32[Array, ""] | int,
    axis_name: str | None,
) -> Restarts:
    """Iterate until every restart has moved its centroids by at most `limit` in squared norm.

    `WIDTH` of them share a step, and the next one takes the place of one that has converged.
    """
    width = min(WIDTH, restarts.inertia.shape[0])

    def active(restarts: Restarts) -> Array:
        return ~restarts.converged & (restarts.iterations < max_iterations)

    def step(restarts: Restarts) -> Restarts:
        chosen = _active_first(active(restarts), width)
        now = jax.tree.map(lambda leaf: leaf[chosen], restarts)
        moved = lloyd_step(points, now, limit, axis_name)
        go = active(now)
        new = jax.tree.map(lambda a, b: jnp.where(go.reshape(-1, *[1] * (a.ndim - 1)), a, b), moved, now)
        return jax.tree.map(lambda leaf, part: leaf.at[chosen].set(part), restarts, new)

    return lax.while_loop(lambda restarts: active(restarts).any(), step, restarts)


def _active_first(active: Array, size: int) -> Array:
    """Indices of `size` restarts: the active ones, padded with others."""
    order = jnp.where(active, jnp.cumsum(active), active.sum() + jnp.cumsum(~active)) - 1
    return (order[:, None] == jnp.arange(size)[None, :]).argmax(axis=0)


def lloyd_step(points: Points, restarts: Restarts, limit: Array, axis_name: str | None) -> Restarts:
    """Assign, then move the centroids to the means; the inertia is that of the means with these labels."""
    found = cluster_sums(points, restarts.centroids, axis_name)
    moved = jnp.where(
        found.mass[:, :, None] > 0,
        found.sums / jnp.where(found.mass > 0, found.mass, 1.0)[:, :, None],
        restarts.centroids,
    )
    gained = (found.mass * squared_norms(moved - restarts.centroids)).sum(axis=1)
    moved = _refill(points, restarts.centroids, moved, found.mass, axis_name)
    converged = ~(squared_norms(moved - restarts.centroids).sum(axis=1) > limit)  # so that nan ends it
    return Restarts(restarts.number, moved, found.inertia - gained, restarts.iterations + 1, converged)


def cluster_sums(points: Points, centroids: Float[Array, "r k d"], axis_name: str | None) -> ClusterSums:
    """Assign every point to its nearest centroid and sum each cluster."""
    r, k, d = centroids.shape
    flat, half = centroids.reshape(r * k, d), squared_norms(centroids)[:, :, None] / 2
    clusters = jnp.arange(k, dtype=jnp.int32)[None, :, None]

    def update(_: Array, x: Array, w: Array, carry: ClusterSums) -> ClusterSums:
        scores = half - matmul(flat, x.T).reshape(r, k, -1)
        labels, nearest = scores.argmin(axis=1).astype(jnp.int32), scores.min(axis=1)
        member = jnp.where(labels[:, None, :] == clusters, w[None, None, :], 0.0)
        sums = matmul(member.reshape(r * k, -1), x).reshape(r, k, d)
        inertia = (w[None, :] * jnp.maximum(squared_norms(x)[None, :] + 2 * nearest, 0.0)).sum(axis=1)
        return ClusterSums(carry.sums + sums, carry.mass + member.sum(axis=2), carry.inertia + inertia)

    zero = ClusterSums(
        jnp.zeros_like(centroids), jnp.zeros_like(centroids[:, :, 0]), jnp.zeros_like(centroids[:, 0, 0])
    )
    return jax.tree.map(partial(sum_over_devices, axis_name=axis_name), fold_chunks(points, r * k, update, zero))


def _refill(points: Points, centroids: Array, moved: Array, mass: Array, axis_name: str | None) -> Array:
    """Move the j-th empty cluster of a restart to the j-th farthest point; costs a pass where there is one."""

    def fill(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        moved, empty = carry
        now = lax.optimization_barrier((centroids, empty))[0]  # or XLA takes the pass out of the loop, into each step
        far = take_rows(points, _farthest(points, now, axis_name), axis_name)
        rank = jnp.where(empty, jnp.cumsum(empty, axis=1, dtype=jnp.int32) - 1, 0)
        filled = jnp.where(empty[:, :, None], jnp.take_along_axis(far, rank[:, :, None], axis=1), moved)
        return filled, jnp.zeros_like(empty)

    # A loop and not lax.cond: under vmap it runs only where some problem needs it.
    return lax.while_loop(lambda carry: carry[1].any(), fill, (moved, mass <= 0))[0]


def _farthest(points: Points, centroids: Float[Array, "r k d"], axis_name: str | None) -> Int32[Array, "r k"]:
    """Global indices of the points that are farthest from their nearest centroid, the farthest first."""
    distances, k = nearest_distances(points, centroids), centroids.shape[1]
    far, local = lax.top_k(distances, min(k, distances.shape[1]))
    index = gather_over_devices(local + first_row_index(distances.shape[1], axis_name), axis_name)
    order = lax.top_k(gather_over_devices(far, axis_name), k)[1]
    return jnp.take_along_axis(index, order, axis=1)


def nearest_distances(points: Points, centroids: Float[Array, "r k d"]) -> Float[Array, "r n"]:
    """Squared distance of each point to the nearest centroid of each restart; -1 for points of weight 0."""
    r, k, d = centroids.shape
    flat, half = centroids.reshape(r * k, d), squared_norms(centroids)[:, :, None] / 2

    def update(first: Array, x: Array, w: Array, carry: Array) -> Array:
        scores = half - matmul(flat, x.T).reshape(r, k, -1)
        nearest = jnp.maximum(squared_norms(x)[None, :] + 2 * scores.min(axis=1), 0.0)
        return lax.dynamic_update_slice(carry, nearest, (jnp.int32(0), first))

    init = jnp.zeros((r, points.rows.shape[0]), centroids.dtype)
    return jnp.where(points.weights[None, :] > 0, fold_chunks(points, r * k, update, init), -1.0)


class Assigned(NamedTuple):
    """What one last pass over the points gives."""

    labels: Int32[Array, "n"]
    inertia: Float[Array, ""]  # from differences, which are exact near 0 where products are not
    doubt: Float[Array, ""]  # how much of it rounding may have put into a wrong cluster


def assign(points: Points, centroids: Float[Array, "k d"], axis_name: str | None) -> Assigned:
    """Labels, the inertia, and how far rounding can be felt in it.

    A point is in doubt where its two nearest centroids are closer to each other in squared distance than the rounding
    of the products that give them.
    """
    k, half = centroids.shape[0], squared_norms(centroids) / 2
    rounding = 4 * jnp.finfo(points.dtype).eps

    def update(first: Array, x: Array, w: Array, carry: Assigned) -> Assigned:
        scores = half[:, None] - matmul(centroids, x.T)
        labels, lengths = scores.argmin(axis=0).astype(jnp.int32), squared_norms(x)
        own = labels[None, :] == jnp.arange(k, dtype=jnp.int32)[:, None]
        margin = 2 * (jnp.where(own, jnp.inf, scores).min(axis=0) - scores.min(axis=0))
        error = rounding * (lengths + 2 * half.max())
        nearest = matmul(own.astype(x.dtype).T, centroids)
        inertia = (w * squared_norms(x - nearest)).sum()
        doubt = (w * jnp.where(margin < error, error, 0.0)).sum()
        all_labels = lax.dynamic_update_slice(carry.labels, labels, (first,))
        return Assigned(all_labels, carry.inertia + inertia, carry.doubt + doubt)

    zero = jnp.zeros_like(half[0])
    found = fold_chunks(points, k, update, Assigned(jnp.zeros(points.rows.shape[0], jnp.int32), zero, zero))
    inertia, doubt = (sum_over_devices(total, axis_name) for total in (found.inertia, found.doubt))
    return Assigned(found.labels, inertia, doubt)
