# SPDX-License-Identifier: Apache-2.0
"""k-means of one or several problems as a pure function of arrays."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key, Num

from ncjax.cluster.lloyd import assign
from ncjax.cluster.points import centre_if_small, make_points
from ncjax.cluster.search import KMeansOptions, refine, search_restarts

MOST_DOUBT = 1e-3  # of the inertia that rounding may have put into a wrong cluster
LEAST_SHARE = 1e-5  # of the inertia around the centre of all points, below which products of float32 compare nothing


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

    centroids: Float[Array | np.ndarray, "*s k d"]
    labels: Int32[Array, "*s n"]
    inertia: Float[Array | np.ndarray, "*s"]
    iterations: Int32[Array, "*s"]
    converged: Bool[Array, "*s"]
    restart_inertia: Float[Array | np.ndarray, "*s r"]


class Solved(NamedTuple):
    """A result, and whether its precision was enough for it."""

    result: KMeansResult
    sound: Bool[Array, "*s"]


def solve(
    key: Key[Array, "*s"],
    points: Num[Array | np.ndarray, "*s n d"],
    weights: Num[Array | np.ndarray, "*s n"] | None,
    initial: Float[Array | np.ndarray, "*s r k d"] | None,
    tol: Float[Array, ""],
    options: KMeansOptions,
) -> Solved:
    """The problems sequentially: each stops when it has converged, and reads only its own points."""
    if weights is None:  # not a constant, which a compiler would fold at length
        weights = lax.optimization_barrier(jnp.ones(points.shape[:-1], jnp.float32))

    def solve_one(problem: tuple[Array, Array, Array, Array | None]) -> Solved:
        return _solve_one(*problem, tol, options)

    problems: Any = (key, points, weights, initial)
    return solve_one(problems) if points.ndim == 2 else lax.map(solve_one, problems)


def _solve_one(
    key: Array, rows: Array, weights: Array, initial: Array | None, tol: Array, options: KMeansOptions
) -> Solved:
    dtype: Any = jnp.float64 if options.double else jnp.float32
    points = make_points(rows, weights, options.axis_name, dtype)
    centre, scale, points = points.centre, points.scale, centre_if_small(points)
    assert centre is not None
    if initial is None:
        best, ranking, total = search_restarts(key, points, tol, options)
    else:
        best, ranking, total = refine((initial - centre[None, None, :]) * scale, points, tol, options)
    labels, inertia, doubt = assign(points, best.centroids[0], options.axis_name)
    result = KMeansResult(
        centroids=best.centroids[0] / scale + centre[None, :],
        labels=labels,
        inertia=inertia / scale / scale,
        iterations=best.iterations[0],
        converged=best.converged[0],
        restart_inertia=jnp.maximum(ranking, inertia).at[best.number[0]].set(inertia) / scale / scale,
    )
    return Solved(result, (inertia >= LEAST_SHARE * total) & (doubt <= MOST_DOUBT * inertia))
