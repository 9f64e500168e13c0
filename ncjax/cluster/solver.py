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
from ncjax.cluster.points import Points, centre_if_small, make_points
from ncjax.cluster.search import KMeansOptions, refine, search_restarts
from ncjax.distributed.processes import to_host
from ncjax.errors import UserError


class KMeansResult(NamedTuple):
    """The best of all restarts, with the evidence; `s` is the axis of the problems where there are several.

    Attributes:
        centroids: means of the clusters.
        labels: cluster of each point, in `0..k-1`.
        inertia: sum of weighted squared distances to the nearest centroid, at least 0.
        iterations: of the best restart, over all points.
        converged: whether the best restart stopped by `tol` and not by `max_iterations`.
        restart_inertia: of every restart when restarts were compared; only the best one is refined further, unless
            `exhaustive`.
    """

    centroids: Float[Array, "*s k d"]
    labels: Int32[Array, "*s n"]
    inertia: Float[Array, "*s"]
    iterations: Int32[Array, "*s"]
    converged: Bool[Array, "*s"]
    restart_inertia: Float[Array, "*s r"]


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
    """Minimises `sum_i w_i min_j |x_i - c_j|^2` over `k` centroids `c`; returns the best of several restarts.

    Lloyd's algorithm (Lloyd 1982) from greedy k-means++ (Arthur and Vassilvitskii 2007, `2 + log k` candidates for each
    centroid). A restart stops when its centroids move by at most `tol` times the mean variance of the features in
    squared norm, as in scikit-learn. An empty cluster moves to the point that is farthest from its centroid.

    The restarts are compared on the leading principal axes and, where there are many points, on an evenly spaced
    subsample; the best one is then refined on all points in all dimensions, so centroids, labels and inertia are those
    of Lloyd's algorithm (`ncjax.cluster.search` has the steps). Points are centred first and products are in full
    float32 precision, so large offsets do no harm. A pass over the points costs `4 n d r k` floating-point operations;
    memory beyond the points is `n * (axes + restarts)` numbers and a chunk of fixed size.

    A pure function of its arguments: it runs under `jit` and `vmap` with `k` and the options fixed, and inside
    `shard_map` with `axis_name`.

    Args:
        key: randomness of the initial centroids; one for each problem where there is a leading axis `s`.
        points: one problem `[n d]`, or several problems `[s n d]`, which are solved sequentially.
        k: number of clusters, from 1 to the number of points of positive weight.
        weights: at least 0; points of weight 0 are ignored, and cost nothing behind the last one of positive weight.
            None: all 1.
        init: k-means++, random (points drawn by weight), or initial centroids `[r k d]`.
        restarts: number of restarts, at least 1; where initial centroids are passed, their number `r` counts instead.
        max_iterations: Lloyd iterations over all points at most.
        tol: relative tolerance, at least 0; 0 iterates to a fixed point.
        exhaustive: run every restart until convergence on all points in all dimensions.
        axis_name: inside `shard_map`: the mesh axis over which the points of a problem are sharded.

    Returns:
        Centroids, labels, inertia (in squared units of the points), and how they were found.

    Raises:
        UserError: k does not fit, or points are not finite (their rows are named); not checked inside `jit` or `vmap`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ncjax import kmeans
        >>> points = jnp.array([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]])
        >>> result = kmeans(jax.random.key(0), points, 2)
        >>> float(result.inertia)
        1.0
        >>> bool(result.labels[0] == result.labels[1]), bool(result.labels[0] == result.labels[2])
        (True, False)
    """
    if weights is None:
        weights = jnp.ones(points.shape[:-1], points.dtype)
    initial = None if isinstance(init, str) else jnp.asarray(init, points.dtype)
    options = KMeansOptions(
        k=k,
        restarts=restarts,
        max_iterations=max_iterations,
        random=isinstance(init, str) and init == "random",
        exhaustive=exhaustive,
        axis_name=axis_name,
    )
    traced = isinstance(points, jax.core.Tracer) or isinstance(weights, jax.core.Tracer)
    if not traced:
        check_count(np.asarray(weights), k)
    result = _solve_all(key, points, weights, initial, jnp.float32(tol), options)
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
    """Raises a UserError where some problem has fewer points than clusters."""
    present = int((weights > 0).sum(axis=-1).min())
    if not 1 <= k <= present:
        raise UserError(f"k-means: k is {k}, but must be from 1 to the number of points, {present}")


def check_finite(points: Array | np.ndarray, results: Array) -> None:
    """Raises a UserError that names the rows that are not finite; looks for them only where results are not finite."""
    if bool(jnp.isfinite(results).all()):
        return
    points = points if isinstance(points, np.ndarray) else to_host(points)
    rows = np.flatnonzero(~np.isfinite(points).all(axis=-1).reshape(-1))
    if not rows.size:
        raise UserError("k-means: squared distances exceed the range of float32; divide the points by a constant")
    named = ", ".join(map(str, rows[:5])) + ("..." if rows.size > 5 else "")
    raise UserError(f"k-means: {rows.size} points are not finite (rows {named}); remove them")


@partial(jax.jit, static_argnames=("options",))
def _solve_all(
    key: Array, points: Array, weights: Array, initial: Array | None, tol: Array, options: KMeansOptions
) -> KMeansResult:
    """The problems sequentially: each stops when it has converged, and reads only its own points."""

    def solve(problem: tuple[Array, Array, Array, Array | None]) -> KMeansResult:
        return _solve(*problem, tol, options)

    problems = key, points, weights, initial
    if points.ndim == 2:
        return solve(problems)
    return lax.map(solve, problems)


def _solve(
    key: Array, rows: Array, weights: Array, initial: Array | None, tol: Array, options: KMeansOptions
) -> KMeansResult:
    points = make_points(rows, weights, options.axis_name)
    centre, points = points.centre, centre_if_small(points)
    assert centre is not None
    if initial is None:
        best, ranking = search_restarts(key, points, tol, options)
    else:
        best, ranking = refine(initial - centre[None, None, :], points, tol, options)
    centroids = best.centroids[0]
    labels, inertia = assign(points, centroids, options.axis_name)
    return KMeansResult(
        centroids=centroids + centre[None, :],
        labels=labels,
        inertia=inertia,
        iterations=best.iterations[0],
        converged=best.converged[0],
        restart_inertia=jnp.maximum(ranking, inertia).at[best.number[0]].set(inertia),
    )
