# SPDX-License-Identifier: Apache-2.0
"""One k-means problem: restarts are compared on reduced points, and the best one is refined on all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ncjax.cluster.initialization import kmeans_plus_plus, random_points
from ncjax.cluster.lloyd import Restarts, lloyd_step, make_restarts, run_lloyd
from ncjax.cluster.pca import principal_axes, project
from ncjax.cluster.points import CHUNK_FLOATS, Points, device_count, subsample, sum_of_squares, sum_over_devices
from ncjax.ops.products import matmul

FINALISTS = 3  # restarts that continue from the subsample to all points
ROWS = 2048  # of the subsample
ROWS_PER_CLUSTER = 512
AXES = 16  # principal axes of the search
AXES_PER_CLUSTER = 2
MIN_REDUCTION = 2  # rows or axes are reduced only where they become fewer by this factor


class KMeansOptions(NamedTuple):
    """What does not depend on the points: static under `jit`."""

    k: int
    restarts: int
    max_iterations: int
    random: bool  # initial centroids are points drawn at random and not by k-means++
    exhaustive: bool
    axis_name: str | None  # mesh axis over which the points are sharded


def search_axes(options: KMeansOptions, n: int, d: int) -> int:
    """Axes of the search, at most `d`: all of them where the points fit a chunk, because finding axes costs too."""
    count = max(AXES, 8 * -(-AXES_PER_CLUSTER * options.k // 8))
    return d if options.exhaustive or MIN_REDUCTION * count > d or n * d <= CHUNK_FLOATS else count


def search_rows(options: KMeansOptions, n: int) -> int:
    """Points of the search, at most `n`."""
    count = max(ROWS, ROWS_PER_CLUSTER * options.k)
    return n if options.exhaustive or MIN_REDUCTION * count > n else count


def initialize(key: Key[Array, ""], points: Points, options: KMeansOptions) -> Float[Array, "r k d"]:
    """Initial centroids of all restarts."""
    draw = random_points if options.random else kmeans_plus_plus
    return draw(key, points, options.k, options.restarts, options.axis_name)


def search_restarts(
    key: Key[Array, ""], points: Points, tol: Float[Array, ""], options: KMeansOptions
) -> tuple[Restarts, Float[Array, "r"]]:
    """The best restart, refined on all points in all dimensions, and the inertia of every restart.

    1. All restarts run until convergence on a subsample of the points and on the leading principal axes.
    2. One step over all points in all dimensions ranks them.
    3. The first few continue with all points, still on the axes; the best of them continues in all dimensions.

    Where the points are few, steps 1 and 3 use all points; where they have few dimensions, all dimensions. Where both
    is so, and with `exhaustive`, this is plain Lloyd.
    """
    axis_name, most = options.axis_name, options.max_iterations
    projected, limit, basis = _reduce(points, tol, options)
    part = subsample(projected, search_rows(options, points.rows.shape[0] * device_count(axis_name)), axis_name)
    restarts = run_lloyd(part, make_restarts(initialize(key, part, options)), limit, most, axis_name)
    if part is points:
        return _best(restarts, 1), restarts.inertia
    restarts = lloyd_step(points, make_restarts(_to_all_dimensions(restarts.centroids, basis)), limit, axis_name)
    ranking = restarts.inertia
    restarts = _best(restarts, FINALISTS)
    if part is not projected:
        on_axes = restarts._replace(centroids=_to_axes(restarts.centroids, basis))
        restarts = run_lloyd(projected, on_axes, limit, most - 1, axis_name)
        restarts = restarts._replace(centroids=_to_all_dimensions(restarts.centroids, basis))
    restarts = _best(restarts, 1)
    if basis is not None:
        unfinished = restarts._replace(converged=jnp.zeros_like(restarts.converged))
        restarts = run_lloyd(points, unfinished, limit, most, axis_name)
    return restarts, ranking


def refine(
    centroids: Float[Array, "r k d"], points: Points, tol: Float[Array, ""], options: KMeansOptions
) -> tuple[Restarts, Float[Array, "r"]]:
    """Plain Lloyd from initial centroids of centred points: the best restart, and the inertia of every restart."""
    axis_name = options.axis_name
    mass = sum_over_devices(points.weights.sum(), axis_name)
    limit = tol * sum_of_squares(points, axis_name) / (mass * points.rows.shape[1])
    restarts = run_lloyd(points, make_restarts(centroids), limit, options.max_iterations, axis_name)
    return _best(restarts, 1), restarts.inertia


def _reduce(points: Points, tol: Array, options: KMeansOptions) -> tuple[Points, Array, Array | None]:
    """The points on their leading axes, the squared movement at which a restart stops, and the axes."""
    d = points.rows.shape[1]
    count = search_axes(options, points.rows.shape[0] * device_count(options.axis_name), d)
    mass = sum_over_devices(points.weights.sum(), options.axis_name)
    if count == d:
        return points, tol * sum_of_squares(points, options.axis_name) / (mass * d), None
    basis = principal_axes(points, count, options.axis_name)
    projected, total = project(points, basis, options.axis_name)
    return projected, tol * total / (mass * d), basis


def _best(restarts: Restarts, count: int) -> Restarts:
    """The restarts of least inertia; the earlier one where only rounding tells two apart."""
    rounded = jnp.floor(jnp.log(jnp.maximum(restarts.inertia, 1e-30)) * 2e4)
    chosen = jnp.argsort(rounded, stable=True)[:count]
    return jax.tree.map(lambda leaf: leaf[chosen], restarts)


def _to_all_dimensions(centroids: Array, basis: Array | None) -> Array:
    return centroids if basis is None else matmul(centroids, basis.T)


def _to_axes(centroids: Array, basis: Array | None) -> Array:
    return centroids if basis is None else matmul(centroids, basis)
