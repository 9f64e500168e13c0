# SPDX-License-Identifier: Apache-2.0
"""k-means: Lloyd's algorithm with greedy k-means++ (Arthur and Vassilvitskii 2007) and restarts."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

from ncjax.errors import UserError

HIGHEST = lax.Precision.HIGHEST


class KMeansResult(NamedTuple):
    """The best of all restarts, with the evidence."""

    centroids: Float[Array, "*s k d"]
    labels: Int32[Array, "*s n"]
    inertia: Float[Array, "*s"]  # sum of weighted squared distances to the nearest centroid, at least 0
    iterations: Int32[Array, "*s"]  # of the best restart
    converged: Bool[Array, "*s"]  # of the best restart
    restart_inertia: Float[Array, "*s r"]


def kmeans(
    key: Key[Array, "*s"],
    points: Float[Array, "*s n d"],
    k: int,
    *,
    weights: Float[Array, "*s n"] | None = None,
    restarts: int = 10,
    max_iterations: int = 300,
    tol: float = 1e-4,
) -> KMeansResult:
    """Minimise `sum_i w_i min_j |x_i - c_j|^2` over `k` centroids; the best of `restarts` runs.

    Each run starts with greedy k-means++ (`2 + log k` candidates a centroid) and stops when no label changes or when
    the centroids move by at most `tol` times the mean variance of the features in squared norm, as scikit-learn's does.
    An empty cluster moves to the point that is farthest from its centroid. Points are centred first and products are in
    full float32 precision, so large offsets do no harm. Needs `n * k * restarts` floats of memory.

    Args:
        key: randomness of the starts; one per problem where there is a leading axis `s`.
        points: one problem `[n d]`, or several at once `[s n d]`.
        k: clusters, at most `n` (with weights: at most the number of points of positive weight).
        weights: at least 0; a point of weight 0 is absent. None: all 1.
        restarts: runs.
        max_iterations: Lloyd steps of a run at most.
        tol: relative tolerance.

    Raises:
        UserError: k does not fit, or a point is not finite (its rows are named); not checked inside `jit` or `vmap`.
    """
    if weights is None:
        weights = jnp.ones(points.shape[:-1], points.dtype)
    if not isinstance(points, jax.core.Tracer):
        _check(np.asarray(points), np.asarray(weights), k)
    solve = _kmeans if points.ndim == 2 else _many_kmeans
    return solve(key, points, weights, jnp.float32(tol), k, restarts, max_iterations)


def _check(points: np.ndarray, weights: np.ndarray, k: int) -> None:
    present = int((weights > 0).sum(axis=-1).min())
    if not 1 <= k <= present:
        raise UserError(f"k-means: k is {k}, but must be from 1 to the number of points, {present}")
    rows = np.flatnonzero(~np.isfinite(points).all(axis=-1).reshape(-1))
    if rows.size:
        named = ", ".join(map(str, rows[:5]))
        raise UserError(f"k-means: {rows.size} points are not finite (rows {named}...); remove them")


@partial(jax.jit, static_argnames=("k", "restarts", "max_iterations"))
def _kmeans(
    key: Array, points: Array, weights: Array, tol: Array, k: int, restarts: int, max_iterations: int
) -> KMeansResult:
    total = weights.sum()
    mean = (weights @ points) / total
    points = jnp.where(weights[:, None] > 0, points - mean[None, :], 0.0)
    limit = tol * (weights[:, None] * points**2).sum(axis=0).mean() / total
    run = partial(_run, points, weights, limit, k, max_iterations)
    centroids, labels, iterations, converged = jax.vmap(run)(jax.random.split(key, restarts))
    inertia = lax.map(partial(_inertia, points, weights), (centroids, labels))
    best = inertia.argmin()
    return KMeansResult(
        centroids[best] + mean[None, :], labels[best], inertia[best], iterations[best], converged[best], inertia
    )


_many_kmeans = partial(jax.jit, static_argnums=(4, 5, 6))(jax.vmap(_kmeans, in_axes=(0, 0, 0, None, None, None, None)))


def _squared_distances(points: Array, centroids: Array) -> Array:
    products = jnp.matmul(points, centroids.T, precision=HIGHEST)
    squares = (points**2).sum(axis=1)[:, None] + (centroids**2).sum(axis=1)[None, :]
    return jnp.maximum(squares - 2 * products, 0.0)


def _assign(points: Array, centroids: Array) -> tuple[Array, Array]:
    """Nearest centroid of each point and the squared distance to it."""
    distances = _squared_distances(points, centroids)
    return distances.argmin(axis=1).astype(jnp.int32), distances.min(axis=1)


def _inertia(points: Array, weights: Array, found: tuple[Array, Array]) -> Array:
    """From differences: exact near 0, where products are not; one restart at a time, for it holds `[n d]`."""
    centroids, labels = found
    return (weights * ((points - centroids[labels]) ** 2).sum(axis=1)).sum()


def _run(points: Array, weights: Array, limit: Array, k: int, max_iterations: int, key: Array) -> tuple[Array, ...]:
    def unfinished(carry: tuple[Array, ...]) -> Array:
        *_, iteration, converged = carry
        return ~converged & (iteration < max_iterations)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        centroids, labels, nearest, iteration, _ = carry
        moved = _update(points, weights, labels, nearest, centroids)
        new_labels, new_nearest = _assign(points, moved)
        still = (jnp.where(weights > 0, new_labels, labels) == labels).all()
        converged = still | (((moved - centroids) ** 2).sum() <= limit)
        return moved, new_labels, new_nearest, iteration + 1, converged

    centroids = _plus_plus(key, points, weights, k)
    start: tuple[Array, ...] = (centroids, *_assign(points, centroids), jnp.int32(0), jnp.asarray(False))
    centroids, labels, _, iterations, converged = lax.while_loop(unfinished, step, start)
    return centroids, labels, iterations, converged


def _update(points: Array, weights: Array, labels: Array, nearest: Array, centroids: Array) -> Array:
    """Weighted means; the j-th empty cluster moves to the j-th farthest point."""
    k = centroids.shape[0]
    member = jax.nn.one_hot(labels, k, dtype=points.dtype) * weights[:, None]
    mass = member.sum(axis=0)
    means = jnp.matmul(member.T, points, precision=HIGHEST) / jnp.maximum(mass, 1e-30)[:, None]
    farthest = lax.top_k(jnp.where(weights > 0, nearest, -1.0), k)[1]
    empty = mass <= 0
    replacement = points[farthest[jnp.maximum(jnp.cumsum(empty) - 1, 0)]]
    return jnp.where(empty[:, None], replacement, means)


def _plus_plus(key: Array, points: Array, weights: Array, k: int) -> Array:
    """Greedy k-means++: of some candidates drawn by weighted squared distance, the one that lowers the inertia most."""
    candidates = 2 + int(math.log(k))
    first_key, key = jax.random.split(key)
    first = points[jax.random.categorical(first_key, jnp.log(weights))]
    centroids = jnp.tile(first[None, :], (k, 1))

    def add(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, nearest = carry
        chances = weights * nearest
        chances = jnp.where(chances.sum() > 0, chances, weights)
        drawn = jax.random.categorical(jax.random.fold_in(key, j), jnp.log(chances), shape=(candidates,))
        distances = jnp.minimum(nearest[:, None], _squared_distances(points, points[drawn]))
        best = (weights[:, None] * distances).sum(axis=0).argmin()
        return centroids.at[j].set(points[drawn[best]]), distances[:, best]

    nearest = ((points - first[None, :]) ** 2).sum(axis=1)
    return lax.fori_loop(1, k, add, (centroids, nearest))[0]
