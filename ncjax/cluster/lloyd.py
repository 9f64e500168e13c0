# SPDX-License-Identifier: Apache-2.0
"""Lloyd's algorithm for many restarts at once.

All restarts share each read of a chunk of points: one product gives the distances to all their centroids, a second one,
of the one-hot labels with the chunk that is still in the cache, gives the sums for their update.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ncjax.cluster.points import HIGHEST, Points, add_up, first_place, gather, read_chunks, squared_norms, take_rows


class Lanes(NamedTuple):
    """The restarts."""

    number: Int32[Array, "r"]
    centroids: Float[Array, "r k d"]  # of centred points
    inertia: Float[Array, "r"]  # from products: inexact where it is tiny against the variance of the points
    iterations: Int32[Array, "r"]
    converged: Bool[Array, "r"]


class Swept(NamedTuple):
    """What one pass over the points gives."""

    sums: Float[Array, "r k d"]
    mass: Float[Array, "r k"]
    inertia: Float[Array, "r"]


def start_lanes(centroids: Float[Array, "r k d"]) -> Lanes:
    """No step made."""
    r = centroids.shape[0]
    return Lanes(
        jnp.arange(r, dtype=jnp.int32),
        centroids,
        jnp.full(r, jnp.inf, centroids.dtype),
        jnp.zeros(r, jnp.int32),
        jnp.zeros(r, bool),
    )


def lloyd(points: Points, lanes: Lanes, limit: Float[Array, ""], max_iterations: int, axis: str | None) -> Lanes:
    """Step until every restart has moved its centroids by at most `limit` in squared norm.

    A loop for a third of the restarts follows the one for all, so those that have converged soon cost nothing.
    """

    def active(lanes: Lanes) -> Array:
        return ~lanes.converged & (lanes.iterations < max_iterations)

    def more_than(few: int, lanes: Lanes) -> Array:
        return active(lanes).sum() > few

    def step(size: int, lanes: Lanes) -> Lanes:
        chosen = _first(active(lanes), size)
        now = jax.tree.map(lambda leaf: leaf[chosen], lanes)
        moved = lloyd_step(points, now, limit, axis)
        go = active(now)
        new = jax.tree.map(lambda a, b: jnp.where(go.reshape(-1, *[1] * (a.ndim - 1)), a, b), moved, now)
        return jax.tree.map(lambda leaf, part: leaf.at[chosen].set(part), lanes, new)

    for size, few in _stages(lanes.inertia.shape[0]):
        lanes = lax.while_loop(partial(more_than, few), partial(step, size), lanes)
    return lanes


def _stages(restarts: int) -> list[tuple[int, int]]:
    """Restarts in a loop, and how few of them may be left for the next loop to take over."""
    few = max(1, restarts // 3)
    return [(1, 0)] if restarts == 1 else [(restarts, few), (few, 0)]


def _first(active: Array, size: int) -> Array:
    """Places of the active restarts, filled up with others."""
    order = jnp.where(active, jnp.cumsum(active), active.sum() + jnp.cumsum(~active)) - 1
    return (order[:, None] == jnp.arange(size)[None, :]).argmax(axis=0)


def lloyd_step(points: Points, lanes: Lanes, limit: Array, axis: str | None) -> Lanes:
    """Assign, then move the centroids to the means; the inertia is that of the means with these labels."""
    swept = sweep(points, lanes.centroids, axis)
    moved = jnp.where(
        swept.mass[:, :, None] > 0, swept.sums / jnp.maximum(swept.mass, 1e-30)[:, :, None], lanes.centroids
    )
    gained = (swept.mass * squared_norms(moved - lanes.centroids)).sum(axis=1)
    moved = _refill(points, lanes.centroids, moved, swept.mass, axis)
    still = ~(squared_norms(moved - lanes.centroids).sum(axis=1) > limit)  # so that nan ends it
    return Lanes(lanes.number, moved, swept.inertia - gained, lanes.iterations + 1, still)


def sweep(points: Points, centroids: Float[Array, "r k d"], axis: str | None) -> Swept:
    """Assign every point to its nearest centroid and add up each cluster."""
    r, k, d = centroids.shape
    flat, half = centroids.reshape(r * k, d), squared_norms(centroids)[:, :, None] / 2
    clusters = jnp.arange(k, dtype=jnp.int32)[None, :, None]

    def read(_: Array, x: Array, w: Array, seen: Swept) -> Swept:
        products = jnp.matmul(flat, x.T, precision=HIGHEST).reshape(r, k, -1)
        scores = half - products
        labels, nearest = scores.argmin(axis=1).astype(jnp.int32), scores.min(axis=1)
        member = jnp.where(labels[:, None, :] == clusters, w[None, None, :], 0.0)
        sums = jnp.matmul(member.reshape(r * k, -1), x, precision=HIGHEST).reshape(r, k, d)
        inertia = (w[None, :] * jnp.maximum(squared_norms(x)[None, :] + 2 * nearest, 0.0)).sum(axis=1)
        return Swept(seen.sums + sums, seen.mass + member.sum(axis=2), seen.inertia + inertia)

    zero = Swept(jnp.zeros_like(centroids), jnp.zeros_like(centroids[:, :, 0]), jnp.zeros_like(centroids[:, 0, 0]))
    return jax.tree.map(partial(add_up, axis=axis), read_chunks(points, r * k, read, zero))


def _refill(points: Points, centroids: Array, moved: Array, mass: Array, axis: str | None) -> Array:
    """The j-th empty cluster of a restart moves to the j-th farthest point; costs a pass where there is one."""

    def fill_all(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        distances = nearest_distances(points, centroids)
        moved, empty, _ = lax.while_loop(
            lambda carry: carry[1].any(), partial(_fill, points, axis), (*carry, distances)
        )
        return moved, empty

    # A loop and not lax.cond: under vmap it runs only where some problem needs it.
    return lax.while_loop(lambda carry: carry[1].any(), fill_all, (moved, mass <= 0))[0]


def _fill(points: Points, axis: str | None, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Put the first empty cluster of each restart on its farthest point, which is no longer far then."""
    moved, empty, distances = carry
    here = distances.argmax(axis=1).astype(jnp.int32)
    place = first_place(distances.shape[1], axis)
    far = gather(distances.max(axis=1)[:, None], axis)
    owner = far.argmax(axis=1)[:, None]
    index = jnp.take_along_axis(gather(here[:, None] + place, axis), owner, axis=1)
    cluster = jnp.arange(empty.shape[1], dtype=jnp.int32)[None, :]
    chosen = empty & (cluster == empty.argmax(axis=1)[:, None])
    moved = jnp.where(chosen[:, :, None], take_rows(points, index, axis), moved)
    places = place + jnp.arange(distances.shape[1], dtype=jnp.int32)
    return moved, empty & ~chosen, jnp.where(places[None, :] == index, -1.0, distances)


def nearest_distances(points: Points, centroids: Float[Array, "r k d"]) -> Float[Array, "r n"]:
    """Squared distance of each point to the nearest centroid of each restart; -1 for absent points."""
    r, k, d = centroids.shape
    flat, half = centroids.reshape(r * k, d), squared_norms(centroids)[:, :, None] / 2

    def read(first: Array, x: Array, w: Array, seen: Array) -> Array:
        scores = half - jnp.matmul(flat, x.T, precision=HIGHEST).reshape(r, k, -1)
        nearest = jnp.maximum(squared_norms(x)[None, :] + 2 * scores.min(axis=1), 0.0)
        return lax.dynamic_update_slice(seen, nearest, (jnp.int32(0), first))

    start = jnp.zeros((r, points.rows.shape[0]), centroids.dtype)
    return jnp.where(points.weights[None, :] > 0, read_chunks(points, r * k, read, start), -1.0)


def assign(
    points: Points, centroids: Float[Array, "k d"], axis: str | None
) -> tuple[Int32[Array, "n"], Float[Array, ""]]:
    """Labels, and the inertia from differences: exact near 0, where products are not."""
    half = squared_norms(centroids) / 2

    def read(first: Array, x: Array, w: Array, seen: tuple[Array, Array]) -> tuple[Array, Array]:
        scores = half[:, None] - jnp.matmul(centroids, x.T, precision=HIGHEST)
        found = scores.argmin(axis=0).astype(jnp.int32)
        own = jnp.matmul(jax.nn.one_hot(found, half.shape[0], dtype=x.dtype), centroids, precision=HIGHEST)
        inertia = (w * squared_norms(x - own)).sum()
        return lax.dynamic_update_slice(seen[0], found, (first,)), seen[1] + inertia

    start = jnp.zeros(points.rows.shape[0], jnp.int32), jnp.zeros_like(half[0])
    labels, inertia = read_chunks(points, centroids.shape[0], read, start)
    return labels, add_up(inertia, axis)
