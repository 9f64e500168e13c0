# SPDX-License-Identifier: Apache-2.0
"""Where the restarts of k-means start: greedy k-means++ (Arthur and Vassilvitskii 2007) or points drawn at random."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Key

from ncjax.cluster.points import HIGHEST, Points, add_up, first_place, gather, read_chunks, squared_norms, take_rows

BLOCK = 512  # points are drawn in two steps: a block, then one of it


def plus_plus(key: Key[Array, ""], points: Points, k: int, restarts: int, axis: str | None) -> Float[Array, "r k d"]:
    """Of `2 + log k` candidates, drawn by squared distance to the nearest centroid, the best one."""
    trials = 2 + int(math.log(k))
    r, n, d = restarts, *points.rows.shape
    by_weight = jnp.broadcast_to(points.weights[None, :], (r, n))
    first = draw(jax.random.fold_in(key, 0), by_weight, trials, axis)[:, 0]

    def add(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, distances = carry
        distances = _nearer(points, centroids[:, j - 1], distances)
        drawn = draw(jax.random.fold_in(key, j), _chances(points, distances, axis), trials, axis)
        candidates = take_rows(points, drawn, axis)
        best = _potentials(points, candidates, distances, axis).argmin(axis=1)
        chosen = jnp.take_along_axis(candidates, best[:, None, None], axis=1)[:, 0]
        return centroids.at[:, j].set(chosen), distances

    centroids = jnp.zeros((r, k, d), points.rows.dtype).at[:, 0].set(take_rows(points, first, axis))
    return lax.fori_loop(1, k, add, (centroids, jnp.full((r, n), jnp.inf, points.rows.dtype)))[0]


def at_random(key: Key[Array, ""], points: Points, k: int, restarts: int, axis: str | None) -> Float[Array, "r k d"]:
    """Different points, drawn by weight."""
    chances = jnp.broadcast_to(points.weights[None, :], (restarts, points.weights.shape[0]))
    count = points.weights.shape[0]
    places = first_place(count, axis) + jnp.arange(count, dtype=jnp.int32)

    def add(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        index, chances = carry
        drawn = draw(jax.random.fold_in(key, j), chances, 1, axis)
        return index.at[:, j].set(drawn[:, 0]), jnp.where(places[None, :] == drawn, 0.0, chances)

    index, _ = lax.fori_loop(0, k, add, (jnp.zeros((restarts, k), jnp.int32), chances))
    return take_rows(points, index, axis)


def draw(key: Key[Array, ""], chances: Float[Array, "r n"], count: int, axis: str | None) -> Int32[Array, "r t"]:
    """Points by chance, with replacement; the cumulative chance is summed in blocks, exact for many points too."""
    r, n = chances.shape
    blocks = jnp.pad(chances, ((0, 0), (0, -n % BLOCK))).reshape(r, -1, BLOCK)
    sums = gather(blocks.sum(axis=2), axis)
    ends = jnp.cumsum(sums, axis=1)
    targets = jax.random.uniform(key, (r, count), chances.dtype) * ends[:, -1:]
    block = _first_above(ends, sums, targets)
    before = jnp.take_along_axis(ends - sums, block, axis=1)
    local = block - first_place(blocks.shape[1], axis)
    mine = (local >= 0) & (local < blocks.shape[1])
    inside = jnp.take_along_axis(blocks, jnp.clip(local, 0, blocks.shape[1] - 1)[:, :, None], axis=1)
    inside = inside.reshape(r * count, BLOCK)
    place = _first_above(jnp.cumsum(inside, axis=1), inside, (targets - before).reshape(-1, 1)).reshape(r, count)
    return add_up(jnp.where(mine, first_place(n, axis) + local * BLOCK + place, 0), axis)


def _first_above(ends: Array, parts: Array, targets: Array) -> Array:
    """Per row and target the first place of positive chance where the cumulative chance passes the target."""
    passed = (ends[:, None, :] > targets[:, :, None]) & (parts[:, None, :] > 0)
    found = passed.argmax(axis=2)
    likeliest = parts.argmax(axis=1)[:, None]  # rounding may leave a target above the end
    return jnp.where(passed.any(axis=2), found, likeliest).astype(jnp.int32)


def _chances(points: Points, distances: Array, axis: str | None) -> Array:
    """Weighted squared distances; the weights where every point lies on a centroid."""
    present = points.weights[None, :] > 0
    chances = jnp.where(present, points.weights[None, :] * distances, 0.0)
    return jnp.where(add_up(chances.sum(axis=1, keepdims=True), axis) > 0, chances, points.weights[None, :])


def _nearer(points: Points, chosen: Array, distances: Array) -> Array:
    """Squared distances to the centroids so far, when one more was chosen in each restart."""
    r, half = chosen.shape[0], squared_norms(chosen)[:, None] / 2

    def read(first: Array, x: Array, w: Array, seen: Array) -> Array:
        new = squared_norms(x)[None, :] + 2 * (half - jnp.matmul(chosen, x.T, precision=HIGHEST))
        old = lax.dynamic_slice(seen, (jnp.int32(0), first), new.shape)
        return lax.dynamic_update_slice(seen, jnp.minimum(old, jnp.maximum(new, 0.0)), (jnp.int32(0), first))

    return read_chunks(points, r, read, distances)


def _potentials(points: Points, candidates: Array, distances: Array, axis: str | None) -> Array:
    """The inertia with each candidate added."""
    r, t, d = candidates.shape
    flat, half = candidates.reshape(r * t, d), squared_norms(candidates)[:, :, None] / 2

    def read(first: Array, x: Array, w: Array, seen: Array) -> Array:
        products = jnp.matmul(flat, x.T, precision=HIGHEST).reshape(r, t, -1)
        new = jnp.maximum(squared_norms(x)[None, None, :] + 2 * (half - products), 0.0)
        old = lax.dynamic_slice(distances, (jnp.int32(0), first), (r, x.shape[0]))
        return seen + (w[None, None, :] * jnp.minimum(old[:, None, :], new)).sum(axis=2)

    return add_up(read_chunks(points, r * t, read, jnp.zeros((r, t), candidates.dtype)), axis)
