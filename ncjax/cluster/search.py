# SPDX-License-Identifier: Apache-2.0
"""One k-means problem: restarts are searched for where it is cheap, and the best one is finished where it is exact."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ncjax.cluster.axes import principal_axes, rotate
from ncjax.cluster.lloyd import Lanes, lloyd, lloyd_step, start_lanes
from ncjax.cluster.points import CHUNK_FLOATS, HIGHEST, Points, add_up, device_count, energy, spread_rows
from ncjax.cluster.seeds import at_random, plus_plus

FINALISTS = 3  # restarts that go on from a part of the points to all
ROWS = 2048  # of that part
ROWS_PER_CLUSTER = 512
AXES = 16  # that the search sees
AXES_PER_CLUSTER = 2
WORTH = 2  # as many times fewer rows or axes make a search worth while


class Plan(NamedTuple):
    """What does not depend on the points."""

    k: int
    restarts: int
    max_iterations: int
    random: bool  # start at points drawn at random and not by k-means++
    exhaustive: bool
    axis: str | None  # of the devices that share the points


def search_axes(plan: Plan, n: int, d: int) -> int:
    """Axes that the search sees, at most `d`: all of them where the points fit a chunk, for finding axes costs too."""
    count = max(AXES, 8 * -(-AXES_PER_CLUSTER * plan.k // 8))
    return d if plan.exhaustive or WORTH * count > d or n * d <= CHUNK_FLOATS else count


def search_rows(plan: Plan, n: int) -> int:
    """Points that the search sees, at most `n`."""
    count = max(ROWS, ROWS_PER_CLUSTER * plan.k)
    return n if plan.exhaustive or WORTH * count > n else count


def seeds(key: Key[Array, ""], points: Points, plan: Plan) -> Float[Array, "r k d"]:
    """Where the restarts start."""
    draw = at_random if plan.random else plus_plus
    return draw(key, points, plan.k, plan.restarts, plan.axis)


def search(key: Key[Array, ""], points: Points, tol: Float[Array, ""], plan: Plan) -> tuple[Lanes, Float[Array, "r"]]:
    """The best restart, finished on all points in all dimensions, and the inertia of every one.

    1. All restarts run to their end on a part of the points and on the leading principal axes.
    2. One step over all points in all dimensions ranks them.
    3. The first few go on with all points, still on the axes; the best of them goes on in all dimensions.

    Where the points are few, steps 1 and 3 see all of them; where they have few dimensions, all of those. Where both is
    so, and where the plan is exhaustive, this is plain Lloyd.
    """
    small, limit, basis = _reduce(points, tol, plan)
    part = spread_rows(small, search_rows(plan, points.rows.shape[0] * device_count(plan.axis)), plan.axis)
    lanes = lloyd(part, start_lanes(seeds(key, part, plan)), limit, plan.max_iterations, plan.axis)
    if part is points:
        return _best(lanes, 1), lanes.inertia
    lanes = lloyd_step(points, start_lanes(_lift(lanes.centroids, basis)), limit, plan.axis)
    ranking = lanes.inertia
    lanes = _best(lanes, FINALISTS)
    if part is not small:
        lowered = lanes._replace(centroids=_lower(lanes.centroids, basis))
        lanes = lloyd(small, lowered, limit, plan.max_iterations - 1, plan.axis)
        lanes = lanes._replace(centroids=_lift(lanes.centroids, basis))
    lanes = _best(lanes, 1)
    if basis is not None:
        unfinished = lanes._replace(converged=jnp.zeros_like(lanes.converged))
        lanes = lloyd(points, unfinished, limit, plan.max_iterations, plan.axis)
    return lanes, ranking


def finish_given(
    centroids: Float[Array, "r k d"], points: Points, tol: Float[Array, ""], plan: Plan
) -> tuple[Lanes, Float[Array, "r"]]:
    """Plain Lloyd from given centroids of centred points."""
    limit = tol * energy(points, plan.axis) / (add_up(points.weights.sum(), plan.axis) * points.rows.shape[1])
    lanes = lloyd(points, start_lanes(centroids), limit, plan.max_iterations, plan.axis)
    return _best(lanes, 1), lanes.inertia


def _reduce(points: Points, tol: Array, plan: Plan) -> tuple[Points, Array, Array | None]:
    """The points on their leading axes, the squared movement at which a restart stops, and the axes."""
    d = points.rows.shape[1]
    count = search_axes(plan, points.rows.shape[0] * device_count(plan.axis), d)
    mass = add_up(points.weights.sum(), plan.axis)
    if count == d:
        return points, tol * energy(points, plan.axis) / (mass * d), None
    basis = principal_axes(points, count, plan.axis)
    small, total = rotate(points, basis, plan.axis)
    return small, tol * total / (mass * d), basis


def _best(lanes: Lanes, count: int) -> Lanes:
    """The restarts of least inertia; the earlier one where rounding alone tells two apart."""
    rounded = jnp.floor(jnp.log(jnp.maximum(lanes.inertia, 1e-30)) * 2e4)
    chosen = jnp.argsort(rounded, stable=True)[:count]
    return jax.tree.map(lambda leaf: leaf[chosen], lanes)


def _lift(centroids: Array, basis: Array | None) -> Array:
    return centroids if basis is None else jnp.matmul(centroids, basis.T, precision=HIGHEST)


def _lower(centroids: Array, basis: Array | None) -> Array:
    return centroids if basis is None else jnp.matmul(centroids, basis, precision=HIGHEST)
