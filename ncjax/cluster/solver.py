# SPDX-License-Identifier: Apache-2.0
"""k-means: Lloyd's algorithm with greedy k-means++ (Arthur and Vassilvitskii 2007) and restarts."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

from ncjax.cluster.lloyd import assign
from ncjax.cluster.points import Points, make_points, settle
from ncjax.cluster.search import Plan, finish_given, search
from ncjax.errors import UserError
from ncjax.distributed.processes import to_host


class KMeansResult(NamedTuple):
    """The best of all restarts, with the evidence."""

    centroids: Float[Array, "*s k d"]
    labels: Int32[Array, "*s n"]
    inertia: Float[Array, "*s"]  # sum of weighted squared distances to the nearest centroid, at least 0
    iterations: Int32[Array, "*s"]  # of the best restart
    converged: Bool[Array, "*s"]  # of the best restart
    restart_inertia: Float[Array, "*s r"]  # the others as they were ranked: not finished, unless all were


def kmeans(
    key: Key[Array, "*s"],
    points: Float[Array, "*s n d"],
    k: int,
    *,
    weights: Float[Array, "*s n"] | None = None,
    init: Literal["k-means++", "random"] | Float[Array, "*s r k d"] = "k-means++",
    restarts: int = 10,
    max_iterations: int = 300,
    tol: float = 1e-4,
    exhaustive: bool = False,
    axis_name: str | None = None,
) -> KMeansResult:
    """Minimise `sum_i w_i min_j |x_i - c_j|^2` over `k` centroids; the best of `restarts` runs.

    Each run starts with greedy k-means++ (`2 + log k` candidates a centroid) and stops when the centroids move by at
    most `tol` times the mean variance of the features in squared norm, as scikit-learn's does. An empty cluster moves
    to the point that is farthest from its centroid. The restarts are compared on the leading principal axes and, where
    points are many, on an evenly spaced part of them; the best is then finished on all points in all dimensions, so
    centroids, labels and inertia are those of Lloyd's algorithm (`ncjax.cluster.search` has the steps). Points are
    centred first and products are in full float32 precision, so large offsets do no harm. Memory beyond the points:
    `n * (axes + restarts)` numbers and a fixed chunk.

    Args:
        key: randomness of the starts; one per problem where there is a leading axis `s`.
        points: one problem `[n d]`, or several at once `[s n d]`.
        k: clusters, at most `n` (with weights: at most the number of points of positive weight).
        weights: at least 0; a point of weight 0 is absent, and costs nothing behind the last present one. None: all 1.
        init: how runs start: k-means++, random (points drawn by weight), or given centroids `[r k d]`.
        restarts: runs; where centroids are given, there are as many as of those.
        max_iterations: Lloyd steps over all points at most.
        tol: relative tolerance; 0 for a fixed point.
        exhaustive: every run goes to its end on all points in all dimensions.
        axis_name: inside `shard_map`: the mesh axis over which the points of a problem are spread.

    Raises:
        UserError: k does not fit, or a point is not finite (its rows are named); not checked inside `jit` or `vmap`.
    """
    if weights is None:
        weights = jnp.ones(points.shape[:-1], points.dtype)
    given = None if isinstance(init, str) else jnp.asarray(init, points.dtype)
    plan = Plan(
        k=k,
        restarts=restarts,
        max_iterations=max_iterations,
        random=isinstance(init, str) and init == "random",
        exhaustive=exhaustive,
        axis=axis_name,
    )
    traced = isinstance(points, jax.core.Tracer) or isinstance(weights, jax.core.Tracer)
    if not traced:
        check_count(np.asarray(weights), k)
    result = _solve_all(key, points, weights, given, jnp.float32(tol), plan)
    if not traced:
        check_finite(points, result.inertia)
    return result


@jax.jit
def assign_to(
    points: Float[Array, "n d"], centroids: Float[Array, "k d"], weights: Float[Array, "n"]
) -> tuple[Int32[Array, "n"], Float[Array, ""]]:
    """The nearest centroid of each point of positive weight, and the inertia."""
    centre = centroids.mean(axis=0)
    centred = Points(points, weights, centre, jnp.int32(points.shape[0]))
    return assign(centred, centroids - centre[None, :], None)


def check_count(weights: np.ndarray, k: int) -> None:
    """Raise a UserError where some problem has fewer points than clusters."""
    present = int((weights > 0).sum(axis=-1).min())
    if not 1 <= k <= present:
        raise UserError(f"k-means: k is {k}, but must be from 1 to the number of points, {present}")


def check_finite(points: Array | np.ndarray, inertia: Array) -> None:
    """Raise a UserError that names the rows where the result shows that some are not finite: free where all are."""
    if bool(jnp.isfinite(inertia).all()):
        return
    points = points if isinstance(points, np.ndarray) else to_host(points)
    rows = np.flatnonzero(~np.isfinite(points).all(axis=-1).reshape(-1))
    if not rows.size:
        raise UserError("k-means: squared distances exceed the range of float32; divide the points by a constant")
    named = ", ".join(map(str, rows[:5])) + ("..." if rows.size > 5 else "")
    raise UserError(f"k-means: {rows.size} points are not finite (rows {named}); remove them")


@partial(jax.jit, static_argnames=("plan",))
def _solve_all(key: Array, points: Array, weights: Array, given: Array | None, tol: Array, plan: Plan) -> KMeansResult:
    """One problem after the other: each ends when it has converged, and reads no more than its own points."""

    def solve(problem: tuple[Array, Array, Array, Array | None]) -> KMeansResult:
        return _solve(*problem, tol, plan)

    problems = key, points, weights, given
    if points.ndim == 2:
        return solve(problems)
    return lax.map(solve, problems)


def _solve(key: Array, rows: Array, weights: Array, given: Array | None, tol: Array, plan: Plan) -> KMeansResult:
    points = make_points(rows, weights, plan.axis)
    centre, points = points.centre, settle(points)
    assert centre is not None
    if given is None:
        lanes, ranking = search(key, points, tol, plan)
    else:
        lanes, ranking = finish_given(given - centre[None, None, :], points, tol, plan)
    centroids = lanes.centroids[0]
    labels, inertia = assign(points, centroids, plan.axis)
    return KMeansResult(
        centroids=centroids + centre[None, :],
        labels=labels,
        inertia=inertia,
        iterations=lanes.iterations[0],
        converged=lanes.converged[0],
        restart_inertia=jnp.maximum(ranking, inertia).at[lanes.number[0]].set(inertia),
    )
