# SPDX-License-Identifier: Apache-2.0
"""One k-means problem: restarts are compared on reduced points, and the best one is refined on all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ncjax.cluster.initialization import kmeans_plus_plus, random_points
from ncjax.cluster.kernels import has_kernel
from ncjax.cluster.lloyd import Restarts, best_restarts, make_restarts, run_lloyd
from ncjax.cluster.pca import far_chances, principal_axes, project
from ncjax.cluster.points import Points, device_count, subsample, sum_of_squares, sum_over_devices
from ncjax.cluster.swaps import run_lloyd_with_swaps
from ncjax.ops.products import matmul

ROWS = 2048  # of the sample
ROWS_PER_CLUSTER = 512
AXES = 16  # principal axes of the search
AXES_PER_CLUSTER = 2
FEW = 2**20  # numbers in all points, up to which finding axes costs more than it saves
MIN_REDUCTION = 2  # axes are reduced only where they become fewer by this factor
HALF_SHARE = 1 / 32  # of the inertia around the centre, above which products of float16 tell clusters apart
MIN_ROWS_REDUCTION = 4  # the same for rows: a sample has to be searched on all points once more


class KMeansOptions(NamedTuple):
    """What does not depend on the points: static under `jit`."""

    k: int
    restarts: int
    max_iterations: int
    random: bool  # initial centroids are points drawn at random and not by k-means++
    exhaustive: bool
    axis_name: str | None  # mesh axis over which the points are sharded
    double: bool = False  # float64, under `double_precision`


def search_axes(options: KMeansOptions, n: int, d: int) -> int:
    """Axes of the search, at most `d`: all of them where the points are few, because finding axes costs too."""
    count = max(AXES, 8 * -(-AXES_PER_CLUSTER * options.k // 8))
    return d if options.exhaustive or MIN_REDUCTION * count > d or n * d <= FEW else count


def search_rows(options: KMeansOptions, n: int) -> int:
    """Points of the search, at most `n`."""
    count = max(ROWS, ROWS_PER_CLUSTER * options.k)
    return n if options.exhaustive or MIN_ROWS_REDUCTION * count > n else count


def initialize(
    key: Key[Array, ""], points: Points, options: KMeansOptions, axis_name: str | None
) -> Float[Array, "r k d"]:
    """Initial centroids of all restarts."""
    draw = random_points if options.random else kmeans_plus_plus
    return draw(key, points, options.k, options.restarts, axis_name)


class Found(NamedTuple):
    """The outcome of a search."""

    best: Restarts  # one restart, on all points in all dimensions
    ranking: Float[Array, "r"]  # inertia of every restart
    total: Float[Array, ""]  # inertia around the centre of all points


def search_restarts(key: Key[Array, ""], points: Points, tol: Float[Array, ""], options: KMeansOptions) -> Found:
    """The best restart, refined on all points in all dimensions, and the inertia of every restart.

    1. All restarts run until convergence on a random sample of the points and on the leading principal axes.
    2. One step over all points, on the axes, ranks them.
    3. The best few continue with all points.
    4. The best of them is improved by swaps, so that what the sample or a poor local optimum misses is found; not where
       all points were searched and two restarts have found the same best.
    5. It continues in all dimensions.

    Where the points are few, step 1 uses all of them and is step 3; where they have few dimensions, it uses all
    dimensions and step 5 is left out. With `exhaustive`, this is plain Lloyd.
    """
    axis_name, most = options.axis_name, options.max_iterations
    keys = jax.random.split(key, 4)
    reduced = _reduce(keys[0], points, tol, options)
    projected, limit, basis = reduced.projected, reduced.limit, reduced.basis
    part = _sample(keys[1], projected, options)
    over = axis_name if part is projected else None
    restarts = make_restarts(initialize(keys[2], part, options, over))
    from_sample = part is not projected
    if options.exhaustive or from_sample:
        restarts = run_lloyd(part, restarts, limit, most, over)
    if options.exhaustive:
        return Found(best_restarts(restarts, 1), restarts.inertia, reduced.total)
    if from_sample:
        restarts = make_restarts(restarts.centroids)
    best, ranking = run_lloyd_with_swaps(keys[3], projected, restarts, limit, most, axis_name, from_sample=from_sample)
    if basis is not None:
        unfinished = best._replace(
            centroids=_to_all_dimensions(best.centroids, basis), converged=jnp.zeros_like(best.converged)
        )
        best = run_lloyd(points, unfinished, limit, most, axis_name)
    return Found(best, ranking, reduced.total)


def refine(centroids: Float[Array, "r k d"], points: Points, tol: Float[Array, ""], options: KMeansOptions) -> Found:
    """Plain Lloyd from initial centroids of centred points: the best restart, and the inertia of every restart.

    Where the kernel of `ncjax.ops.nearest` is used, products of float16 go down as far as they tell clusters apart, and
    those of float32 go on from there: convergence, and the last step in any case, are theirs.
    """
    axis_name = options.axis_name
    total = sum_of_squares(points, axis_name)
    limit = tol * total / (sum_over_devices(points.weights.sum(), axis_name) * points.rows.shape[1])
    restarts, most = make_restarts(centroids), options.max_iterations
    if has_kernel(points, options.k):
        descended = run_lloyd(points, restarts, limit, most - 1, axis_name, HALF_SHARE * total)
        restarts = descended._replace(converged=jnp.zeros_like(descended.converged))
    restarts = run_lloyd(points, restarts, limit, most, axis_name)
    return Found(best_restarts(restarts, 1), restarts.inertia, total)


class _Reduced(NamedTuple):
    projected: Points  # on the leading axes
    limit: Float[Array, ""]  # squared movement at which a restart stops
    basis: Float[Array, "d m"] | None  # the axes; None: all dimensions
    total: Float[Array, ""]


def _reduce(key: Array, points: Points, tol: Array, options: KMeansOptions) -> _Reduced:
    d, over = points.rows.shape[1], options.axis_name
    count = search_axes(options, points.rows.shape[0] * device_count(over), d)
    mass = sum_over_devices(points.weights.sum(), over)
    if count == d:
        total = sum_of_squares(points, over)
        return _Reduced(points, tol * total / (mass * d), None, total)
    basis = principal_axes(key, points, count, over)
    projected, total = project(points, basis, over)
    return _Reduced(projected, tol * total / (mass * d), basis, total)


def _sample(key: Array, projected: Points, options: KMeansOptions) -> Points:
    """The points of the first search; the points themselves where they are few."""
    over = options.axis_name
    n = projected.rows.shape[0] * device_count(over)
    count = search_rows(options, n)
    return projected if count == n else subsample(key, projected, count, over, far_chances(projected, over))


def _to_all_dimensions(centroids: Array, basis: Array | None) -> Array:
    return centroids if basis is None else matmul(centroids, basis.T)
