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

from ncjax.cluster.kernels import has_kernel
from ncjax.cluster.points import (
    Points,
    first_row_index,
    fold_chunks,
    gather_over_devices,
    squared_norms,
    sum_over_devices,
    take_rows,
)
from ncjax.ops.nearest import Nearest, nearest_centroids
from ncjax.ops.products import matmul
from ncjax.ops.segments import segment_sums

WIDTH = 4  # restarts that take a step together on CPUs; the others wait until one of them has converged


MOST_COMPARED = 1024  # numbers that are put in order by comparing all with all


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
    known = jnp.where(jnp.isnan(values), jnp.inf, values)
    if len(values) > MOST_COMPARED:
        return lax.top_k(-known, count)[1]
    number = jnp.arange(len(values), dtype=jnp.int32)
    first = (known[None, :] < known[:, None]) | (known[None, :] == known[:, None]) & (number[None, :] < number[:, None])
    place = first.sum(axis=1, dtype=jnp.int32)  # a sort takes GPUs seconds to compile, for few numbers too
    return (place[None, :] == number[:count, None]).argmax(axis=1).astype(jnp.int32)


def run_lloyd(
    points: Points,
    restarts: Restarts,
    limit: Float[Array, ""],
    max_iterations: Int32[Array, ""] | int,
    axis_name: str | None,
    floor: Float[Array, ""] | None = None,
) -> Restarts:
    """Iterate until every restart has moved its centroids by at most `limit` in squared norm.

    On CPUs `WIDTH` of them share a step, and the next one takes the place of one that has converged; on accelerators
    all do, for a step of many takes no longer there. With a floor, products are of float16, and a restart ends before a
    step whose inertia is below it.
    """
    count = restarts.inertia.shape[0]
    width = min(WIDTH, count) if jax.default_backend() == "cpu" else count

    def active(restarts: Restarts) -> Array:
        return ~restarts.converged & (restarts.iterations < max_iterations)

    def advance(now: Restarts) -> Restarts:
        moved, go = lloyd_step(points, now, limit, axis_name, floor), active(now)
        return jax.tree.map(lambda a, b: jnp.where(go.reshape(-1, *[1] * (a.ndim - 1)), a, b), moved, now)

    def step(restarts: Restarts) -> Restarts:
        if width == count:
            return advance(restarts)
        chosen = _active_first(active(restarts), width)
        new = advance(jax.tree.map(lambda leaf: leaf[chosen], restarts))
        return jax.tree.map(lambda leaf, part: leaf.at[chosen].set(part), restarts, new)

    return lax.while_loop(lambda restarts: active(restarts).any(), step, restarts)


def _active_first(active: Array, size: int) -> Array:
    """Indices of `size` restarts: the active ones, padded with others."""
    order = jnp.where(active, jnp.cumsum(active), active.sum() + jnp.cumsum(~active)) - 1
    return (order[:, None] == jnp.arange(size)[None, :]).argmax(axis=0)


def lloyd_step(
    points: Points, restarts: Restarts, limit: Array, axis_name: str | None, floor: Array | None = None
) -> Restarts:
    """Assign, then move the centroids to the means; the inertia is that of the means with these labels."""
    found = cluster_sums(points, restarts.centroids, axis_name, halves=2 if floor is None else 1)
    moved = jnp.where(
        found.mass[:, :, None] > 0,
        found.sums / jnp.where(found.mass > 0, found.mass, 1.0)[:, :, None],
        restarts.centroids,
    )
    gained = (found.mass * squared_norms(moved - restarts.centroids)).sum(axis=1)
    moved = _refill(points, restarts.centroids, moved, found.mass, axis_name)
    converged = ~(squared_norms(moved - restarts.centroids).sum(axis=1) > limit)  # so that nan ends it
    stepped = Restarts(restarts.number, moved, found.inertia - gained, restarts.iterations + 1, converged)
    if floor is None:
        return stepped
    low = ~(found.inertia >= floor)
    kept = restarts._replace(converged=jnp.ones_like(converged))
    return jax.tree.map(lambda a, b: jnp.where(low.reshape(-1, *[1] * (a.ndim - 1)), a, b), kept, stepped)


def cluster_sums(
    points: Points, centroids: Float[Array, "r k d"], axis_name: str | None, halves: int = 2
) -> ClusterSums:
    """Assign every point to its nearest centroid and sum each cluster; `halves` as for `nearest_centroids`."""
    kernel = has_kernel(points, centroids.shape[1])
    local = _sums_by_kernel(points, centroids, halves) if kernel else _sums_by_products(points, centroids)
    return jax.tree.map(partial(sum_over_devices, axis_name=axis_name), local)


def _sums_by_kernel(points: Points, centroids: Float[Array, "r k d"], halves: int) -> ClusterSums:
    def of_restart(centroids: Array) -> ClusterSums:
        near = nearest_centroids(points.rows, centroids, halves)
        sums, mass = segment_sums(points.rows, points.weights, near.label, centroids.shape[0])
        return ClusterSums(sums, mass, (points.weights * _squared_distance(points, near.first)).sum())

    return jax.vmap(of_restart)(centroids)


def _squared_distance(points: Points, scores: Float[Array, "n"]) -> Float[Array, "n"]:
    return jnp.maximum(squared_norms(points.rows) + 2 * scores, 0.0)


def _sums_by_products(points: Points, centroids: Float[Array, "r k d"]) -> ClusterSums:
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
    found: ClusterSums = fold_chunks(points, r * k, update, zero)
    return found


def _refill(points: Points, centroids: Array, moved: Array, mass: Array, axis_name: str | None) -> Array:
    """Move the j-th empty cluster of a restart to the j-th farthest point; costs a pass where there is one."""

    def fill(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        moved, empty = carry
        now = lax.optimization_barrier((centroids, empty))[0]  # or XLA takes the pass out of the loop, into each step
        most = empty.sum(axis=1, dtype=jnp.int32).max()
        far = take_rows(points, _farthest(points, now, most, axis_name), axis_name)
        rank = jnp.where(empty, jnp.cumsum(empty, axis=1, dtype=jnp.int32) - 1, 0)
        filled = jnp.where(empty[:, :, None], jnp.take_along_axis(far, rank[:, :, None], axis=1), moved)
        return filled, jnp.zeros_like(empty)

    # A loop and not lax.cond: under vmap it runs only where some problem needs it.
    return lax.while_loop(lambda carry: carry[1].any(), fill, (moved, mass <= 0))[0]


def _farthest(
    points: Points, centroids: Float[Array, "r k d"], count: Int32[Array, ""], axis_name: str | None
) -> Int32[Array, "r k"]:
    """Global indices of the `count` points that are farthest from their nearest centroid, the farthest first.

    One after the other, for they are few; to sort all points would take longer.
    """
    distances, (r, k, _) = nearest_distances(points, centroids), centroids.shape
    own = first_row_index(distances.shape[1], axis_name) + jnp.arange(distances.shape[1], dtype=jnp.int32)

    def take(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        distances, found = carry
        local = distances.argmax(axis=1)[:, None]
        far = gather_over_devices(jnp.take_along_axis(distances, local, axis=1), axis_name).argmax(axis=1)[:, None]
        index = jnp.take_along_axis(gather_over_devices(own[local], axis_name), far, axis=1)
        return jnp.where(own[None, :] == index, -jnp.inf, distances), found.at[:, j].set(index[:, 0])

    return lax.fori_loop(0, count, take, (distances, jnp.zeros((r, k), jnp.int32)))[1]


def nearest_distances(points: Points, centroids: Float[Array, "r k d"]) -> Float[Array, "r n"]:
    """Squared distance of each point to the nearest centroid of each restart; -1 for points of weight 0."""
    r, k, d = centroids.shape
    if has_kernel(points, k):
        scores = jax.vmap(lambda one: nearest_centroids(points.rows, one).first)(centroids)
        return jnp.where(points.weights[None, :] > 0, jax.vmap(partial(_squared_distance, points))(scores), -1.0)
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
    local = _assign_by_kernel if has_kernel(points, centroids.shape[0]) else _assign_by_products
    found = local(points, centroids)
    inertia, doubt = (sum_over_devices(total, axis_name) for total in (found.inertia, found.doubt))
    return Assigned(found.labels, inertia, doubt)


def _assign_by_kernel(points: Points, centroids: Float[Array, "k d"]) -> Assigned:
    near: Nearest = nearest_centroids(points.rows, centroids)
    error = _rounding(points, squared_norms(points.rows), centroids)
    inertia = points.weights * squared_norms(points.rows - centroids[near.label])
    doubt = points.weights * jnp.where(2 * (near.second - near.first) < error, error, 0.0)
    return Assigned(near.label, inertia.sum(), doubt.sum())


def _rounding(points: Points, lengths: Float[Array, "b"], centroids: Float[Array, "k d"]) -> Float[Array, "b"]:
    """By how much squared distances to a point may be wrong."""
    return 4 * jnp.finfo(points.dtype).eps * (lengths + squared_norms(centroids).max())


def _assign_by_products(points: Points, centroids: Float[Array, "k d"]) -> Assigned:
    k, half = centroids.shape[0], squared_norms(centroids) / 2

    def update(first: Array, x: Array, w: Array, carry: Assigned) -> Assigned:
        scores = half[:, None] - matmul(centroids, x.T)
        labels, lengths = scores.argmin(axis=0).astype(jnp.int32), squared_norms(x)
        own = labels[None, :] == jnp.arange(k, dtype=jnp.int32)[:, None]
        margin = 2 * (jnp.where(own, jnp.inf, scores).min(axis=0) - scores.min(axis=0))
        error = _rounding(points, lengths, centroids)
        nearest = matmul(own.astype(x.dtype).T, centroids)
        inertia = (w * squared_norms(x - nearest)).sum()
        doubt = (w * jnp.where(margin < error, error, 0.0)).sum()
        all_labels = lax.dynamic_update_slice(carry.labels, labels, (first,))
        return Assigned(all_labels, carry.inertia + inertia, carry.doubt + doubt)

    zero = jnp.zeros_like(half[0])
    start = Assigned(jnp.zeros(points.rows.shape[0], jnp.int32), zero, zero)
    found: Assigned = fold_chunks(points, k, update, start)
    return found
