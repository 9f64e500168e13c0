# SPDX-License-Identifier: Apache-2.0
"""Local search of k-means: centroids that Lloyd's algorithm leaves in a poor local optimum are moved elsewhere.

Lattanzi and Sohler (2019), with one step of foresight (Conrads et al. 2024).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Key

from ncjax.cluster.initialization import draw_points
from ncjax.cluster.lloyd import Restarts, lloyd_step, make_restarts, run_lloyd
from ncjax.cluster.points import Points, fold_chunks, squared_norms, sum_over_devices, take_rows
from ncjax.ops.products import matmul

CANDIDATES_PER_CLUSTER = 4
MOST_CANDIDATES = 64
PROMISING = 4  # swaps that are followed
STEPS = 4  # of Lloyd's algorithm, after which they are compared
MIN_GAIN = 1e-4  # of the inertia, by which a swap must have lowered it then


class Nearest(NamedTuple):
    """The two nearest centroids of each point."""

    label: Int32[Array, "n"]
    first: Float[Array, "n"]  # squared distances
    second: Float[Array, "n"]


def run_lloyd_with_swaps(
    key: Key[Array, ""], points: Points, restart: Restarts, limit: Array, max_iterations: int, axis_name: str | None
) -> Restarts:
    """Lloyd's algorithm, and then replaces one centroid at a time by a better one, until none of those tried is better.

    Each try draws `4 k` points by their squared distance to the nearest centroid, as k-means++ does, moves each to the
    mean of the points that are nearer to it than to their centroid, and computes for every pair of such a candidate and
    a centroid the inertia after an exchange. After the best exchange Lloyd's algorithm goes on.

    Args:
        key: of the draws.
        points: all points.
        restart: one.
        limit: squared movement at which it has converged.
        max_iterations: of the restart in all.
        axis_name: mesh axis over which the points are sharded.
    """
    tried = min(MOST_CANDIDATES, CANDIDATES_PER_CLUSTER * restart.centroids.shape[1])

    def descend(carry: tuple[Array, Restarts, Array]) -> tuple[Array, Restarts, Array]:
        key, draw = jax.random.split(carry[0])
        now = run_lloyd(points, carry[1], limit, max_iterations, axis_name)
        inertia, swapped = _best_swaps(draw, points, now.centroids[0], tried, axis_name)
        ahead = lax.fori_loop(
            0, STEPS, lambda _, ahead: lloyd_step(points, ahead, limit, axis_name), make_restarts(swapped)
        )
        best = ahead.inertia.argmin()
        better = (ahead.inertia[best] < (1 - MIN_GAIN) * inertia) & (now.iterations[0] < max_iterations)
        centroids = jnp.where(better, ahead.centroids[best][None], now.centroids)
        return key, now._replace(centroids=centroids, converged=now.converged & ~better), better

    return lax.while_loop(lambda carry: carry[2], descend, (key, restart, jnp.bool_(True)))[1]


def _best_swaps(
    key: Array, points: Points, centroids: Float[Array, "k d"], tried: int, axis_name: str | None
) -> tuple[Float[Array, ""], Float[Array, "b k d"]]:
    """The inertia, and the centroids after the most promising exchanges, each with another candidate."""
    nearest = _nearest_two(points, centroids)
    chances = points.weights * nearest.first
    drawn = draw_points(key, chances[None, :], tried, axis_name)[0]
    candidates = _attract(points, take_rows(points, drawn, axis_name), nearest, axis_name)
    after = _inertia_after(points, candidates, nearest, centroids.shape[0], axis_name)
    chosen = jnp.argsort(after.min(axis=1))[: min(PROMISING, tried)]
    leaves = after[chosen].argmin(axis=1)
    swapped = jax.vmap(lambda candidate, j: centroids.at[j].set(candidate))(candidates[chosen], leaves)
    return sum_over_devices(chances.sum(), axis_name), swapped


def _nearest_two(points: Points, centroids: Float[Array, "k d"]) -> Nearest:
    k, half = centroids.shape[0], squared_norms(centroids)[:, None] / 2

    def update(first: Array, x: Array, w: Array, carry: Nearest) -> Nearest:
        scores = half - matmul(centroids, x.T)
        label = scores.argmin(axis=0).astype(jnp.int32)
        own = label[None, :] == jnp.arange(k, dtype=jnp.int32)[:, None]
        lengths = squared_norms(x)
        two = (jnp.maximum(lengths + 2 * s, 0.0) for s in (scores.min(axis=0), jnp.where(own, jnp.inf, scores).min(0)))
        return jax.tree.map(lambda a, b: lax.dynamic_update_slice(a, b, (first,)), carry, Nearest(label, *two))

    n = points.rows.shape[0]
    empty = jnp.zeros(n, points.dtype)
    return fold_chunks(points, 2 * k, update, Nearest(jnp.zeros(n, jnp.int32), empty, empty))


def _attract(points: Points, candidates: Float[Array, "t d"], nearest: Nearest, axis_name: str | None) -> Array:
    """Moves each candidate to the mean of the points that are nearer to it than to their centroid."""

    def update(first: Array, x: Array, w: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        own = lax.dynamic_slice_in_dim(nearest.first, first, x.shape[0])
        attracted = jnp.where(_distances(candidates, x) < own[None, :], w[None, :], 0.0)
        return carry[0] + matmul(attracted, x), carry[1] + attracted.sum(axis=1)

    zero = jnp.zeros_like(candidates), jnp.zeros_like(candidates[:, 0])
    sums, mass = fold_chunks(points, 2 * candidates.shape[0], update, zero)
    sums, mass = sum_over_devices(sums, axis_name), sum_over_devices(mass, axis_name)
    return jnp.where(mass[:, None] > 0, sums / jnp.where(mass > 0, mass, 1.0)[:, None], candidates)


def _inertia_after(
    points: Points, candidates: Float[Array, "t d"], nearest: Nearest, k: int, axis_name: str | None
) -> Float[Array, "t k"]:
    """The inertia with a candidate in the place of each centroid, whose points go to it or to their second nearest."""
    t = candidates.shape[0]

    def update(first: Array, x: Array, w: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        label, near, second = (lax.dynamic_slice_in_dim(leaf, first, x.shape[0]) for leaf in nearest)
        distances = _distances(candidates, x)
        kept = jnp.minimum(distances, near[None, :])
        lost = jnp.minimum(distances, second[None, :]) - kept
        own = jax.nn.one_hot(label, k, dtype=x.dtype)
        return carry[0] + matmul(kept, w), carry[1] + matmul(lost * w[None, :], own)

    zero = jnp.zeros(t, points.dtype), jnp.zeros((t, k), points.dtype)
    kept, lost = fold_chunks(points, 2 * t, update, zero)
    return sum_over_devices(kept[:, None] + lost, axis_name)


def _distances(candidates: Float[Array, "t d"], x: Float[Array, "b d"]) -> Float[Array, "t b"]:
    half = squared_norms(candidates)[:, None] / 2
    return jnp.maximum(squared_norms(x)[None, :] + 2 * (half - matmul(candidates, x.T)), 0.0)
