# SPDX-License-Identifier: Apache-2.0
"""Local search of k-means: centroids that Lloyd's algorithm leaves in a poor local optimum are moved elsewhere.

Lattanzi and Sohler (2019), with one step of foresight (Conrads et al. 2024).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

from ncjax.cluster.kernels import has_kernel
from ncjax.cluster.lloyd import Restarts, best_restarts, least, make_restarts, run_lloyd
from ncjax.cluster.points import Points, draw_at, fold_chunks, squared_norms, sum_over_devices, take_rows
from ncjax.ops.nearest import nearest_centroids
from ncjax.ops.products import matmul

CANDIDATES_PER_CLUSTER = 4
MOST_CANDIDATES = 64
BATCH = 4  # restarts that go on after the ranking, or promising swaps
STEPS = 4  # of Lloyd's algorithm, after which swaps are compared
TRIALS = 2  # without gain, after which the search ends
TRIALS_ALONE = 6  # the same for a single restart, behind which no other stands
GOLDEN_RATIO = 0.6180339887  # multiples of it, modulo 1, fill [0, 1) evenly
MIN_GAIN = 1e-4  # of the inertia, by which a swap must have lowered it then
RANK, CONVERGE, TRIAL = range(3)  # phases: one step of all restarts, descent until convergence, a few steps of swaps


class Nearest(NamedTuple):
    """The two nearest centroids of each point."""

    label: Int32[Array, "n"]
    first: Float[Array, "n"]  # squared distances
    second: Float[Array, "n"]


class _Search(NamedTuple):
    trials: Int32[Array, ""]
    best: Restarts  # one restart: the best so far
    batch: Restarts  # those that go on
    phase: Int32[Array, ""]
    failures: Int32[Array, ""]  # trials since the last that has helped
    ranking: Float[Array, "r"]  # inertia of every restart at the end of the first phase


def run_lloyd_with_swaps(
    key: Key[Array, ""],
    points: Points,
    restarts: Restarts,
    limit: Float[Array, ""],
    max_iterations: int,
    axis_name: str | None,
    *,
    from_sample: bool,
) -> tuple[Restarts, Float[Array, "r"]]:
    """Lloyd's algorithm, and then replaces one centroid at a time by a better one, until none of those tried is better.

    Each trial draws `4 k` points by their squared distance to the nearest centroid, as k-means++ does, moves each to
    the mean of the points that are nearer to it than to their centroid, and computes for every pair of such a candidate
    and a centroid the inertia after an exchange. The most promising ones take a few steps; where the best has become
    better, Lloyd's algorithm goes on from it. All phases are one loop, so that a step is compiled once.

    Args:
        key: of the draws.
        points: all points.
        restarts: as they start.
        limit: squared movement at which a restart has converged.
        max_iterations: of a restart in all.
        axis_name: mesh axis over which the points are sharded.
        from_sample: the restarts have converged on a sample, so one step ranks them and the best few go on. Otherwise
            all of them converge, and nothing is swapped where the best two have reached the same inertia.

    Returns:
        One restart, and the inertia of every restart when they were compared.
    """
    count, size = len(restarts.inertia), max(BATCH, len(restarts.inertia))
    first, most_trials = jnp.int32(RANK if from_sample else CONVERGE), TRIALS if count > 1 else TRIALS_ALONE
    tried = max(BATCH, min(MOST_CANDIDATES, CANDIDATES_PER_CLUSTER * restarts.centroids.shape[1]))
    shares = jax.random.uniform(key, (tried,), points.dtype)  # shifted for each trial, which compiles sooner than keys

    def descend(now: _Search) -> _Search:
        trial = now.phase == TRIAL
        most = jnp.where(now.phase == RANK, 1, jnp.where(trial, now.best.iterations[0] + STEPS, max_iterations))
        batch = run_lloyd(points, now.batch, limit, jnp.minimum(most, max_iterations), axis_name)
        found = best_restarts(batch, 1)
        ranking = jnp.where(now.phase == first, batch.inertia[:count], now.ranking)
        better = ~trial | (found.inertia[0] < (1 - MIN_GAIN) * now.best.inertia[0])
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, now.best)
        settled = ~trial & _agree(batch) & (not from_sample)
        failures = jnp.where(settled, most_trials, jnp.where(better, 0, now.failures + 1))
        converges = (now.phase == RANK) | (trial & better)
        batch = lax.cond(
            converges | settled,
            lambda: _keep(best_restarts(batch, size), jnp.where(trial, jnp.int32(1), jnp.int32(BATCH))),
            lambda: _swapped((shares + now.trials * GOLDEN_RATIO) % 1, points, best, size, axis_name),
        )
        phase = jnp.where(converges, jnp.int32(CONVERGE), jnp.int32(TRIAL))
        return _Search(now.trials + 1, best, batch, phase, failures, ranking)

    def goes_on(now: _Search) -> Bool[Array, ""]:
        return (now.failures < most_trials) & ((now.phase != TRIAL) | (now.best.iterations[0] < max_iterations))

    batch, none = _pad(restarts, size), jnp.int32(0)
    end = lax.while_loop(goes_on, descend, _Search(none, best_restarts(batch, 1), batch, first, none, restarts.inertia))
    return end.best, end.ranking


def _agree(batch: Restarts) -> Bool[Array, ""]:
    """Whether the best two restarts have converged to the same inertia."""
    two = best_restarts(batch, 2)
    return (two.inertia[1] - two.inertia[0] <= MIN_GAIN * two.inertia[0]) & two.converged.all()


def _pad(restarts: Restarts, size: int) -> Restarts:
    """As many restarts as a batch has, of which those behind the given ones do not go on."""
    count = len(restarts.inertia)
    return _keep(jax.tree.map(lambda leaf: jnp.resize(leaf, (size, *leaf.shape[1:])), restarts), jnp.int32(count))


def _keep(batch: Restarts, count: Int32[Array, ""]) -> Restarts:
    """A batch of which the first restarts go on."""
    goes_on = jnp.arange(len(batch.inertia)) < count
    return batch._replace(converged=batch.converged | ~goes_on, inertia=jnp.where(goes_on, batch.inertia, jnp.inf))


def _swapped(shares: Array, points: Points, best: Restarts, size: int, axis_name: str | None) -> Restarts:
    """A batch of the most promising swaps."""
    swaps = make_restarts(_best_swaps(shares, points, best.centroids[0], axis_name), best.iterations[0])
    return _pad(swaps._replace(number=jnp.broadcast_to(best.number, swaps.number.shape)), size)


def _best_swaps(
    shares: Float[Array, "t"], points: Points, centroids: Float[Array, "k d"], axis_name: str | None
) -> Float[Array, "b k d"]:
    """The centroids after the most promising exchanges, each with another of the candidates drawn at these shares."""
    k = len(centroids)
    nearest = _nearest_two(points, centroids)
    drawn = draw_at(shares[None, :], (points.weights * nearest.first)[None, :], axis_name)[0]
    candidates = _attract(points, take_rows(points, drawn, axis_name), nearest, axis_name)
    after = _inertia_after(points, candidates, nearest, k, axis_name)
    chosen = least(after.min(axis=1), BATCH)
    leaves = after[chosen].argmin(axis=1)
    return jax.vmap(lambda candidate, j: centroids.at[j].set(candidate))(candidates[chosen], leaves)


def _nearest_two(points: Points, centroids: Float[Array, "k d"]) -> Nearest:
    if has_kernel(points, len(centroids)):
        near, lengths = nearest_centroids(points.rows, centroids), squared_norms(points.rows)
        return Nearest(near.label, *(jnp.maximum(lengths + 2 * scores, 0.0) for scores in near[1:]))
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
