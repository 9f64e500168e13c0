# SPDX-License-Identifier: Apache-2.0
"""k-means of points in memory: Lloyd's algorithm, greedy k-means++ (Arthur and Vassilvitskii 2007), restarts, swaps."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key, Num

from ncjax.cluster.checks import check_finite, check_init, check_options, check_weights, whole
from ncjax.cluster.lloyd import assign
from ncjax.cluster.points import Points, centred_rows, squared_norms
from ncjax.cluster.search import KMeansOptions
from ncjax.cluster.solver import KMeansResult, Solved, solve
from ncjax.distributed.processes import to_host
from ncjax.ops.precision import double_precision
from ncjax.ops.small_programs import jit_untuned
from ncjax.ops.xla import jit_by_size
from ncjax.storage.arrays import takes_tensors

Run = Callable[[Array, Any, Any, Any, Array, KMeansOptions], Solved]
EXACT = ("float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16")  # as float32

run_solve: Run = jit_untuned(solve, static_argnames=("options",))
run_once: Run = jit_by_size(solve, jit=jit_untuned, static_argnames=("options",))


@takes_tensors
def kmeans(
    key: Key[Array, "*s"],
    points: Num[Array | np.ndarray, "*s n d"],
    k: int,
    *,
    weights: Num[Array | np.ndarray, "*s n"] | None = None,
    init: Literal["k-means++", "random"] | Float[Array | np.ndarray, "*s r k d"] = "k-means++",
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

    The restarts are compared on the leading principal axes and, where there are many points, on a random sample; the
    best one is then refined on all points in all dimensions, so centroids, labels and inertia are those of Lloyd's
    algorithm (`ncjax.cluster.search` has the steps). What a sample or a local optimum misses, a local search over all
    points finds (Lattanzi and Sohler 2019): centroids are moved to points drawn as k-means++ draws them while that
    lowers the inertia. Points are centred and scaled first and products are in full float32 precision; where that is
    not enough, all is solved again in float64 (not inside `jit`, `vmap` and `shard_map`). A pass over the points costs
    `4 n d r k` floating-point operations; memory beyond the points is `n * (axes + restarts)` numbers and a chunk of
    fixed size.

    A pure function of its arguments: it runs under `jit` and `vmap` with `k` and the options fixed, and inside
    `shard_map` with `axis_name`.

    Args:
        key: randomness of the initial centroids; one for each problem where there is a leading axis `s`.
        points: one problem `[n d]`, or several problems `[s n d]`, which are solved sequentially; of JAX, NumPy or
            PyTorch, as all arrays here. Those outside JAX of a type wider than float32 are centred in float64, and
            their centroids and inertia are float64.
        k: number of clusters, from 1 to the number of points of positive weight.
        weights: at least 0; points of weight 0 are ignored, and cost nothing behind the last one of positive weight.
            None: all 1.
        init: k-means++, random (points drawn by weight), or initial centroids `[r k d]`.
        restarts: number of restarts, at least 1; where initial centroids are passed, their number `r` counts instead.
        max_iterations: Lloyd iterations over all points at most.
        tol: relative tolerance, at least 0; 0 iterates to a fixed point.
        exhaustive: run every restart until convergence on all points in all dimensions, and swap nothing.
        axis_name: inside `shard_map`: the mesh axis over which the points of a problem are sharded.

    Returns:
        Centroids, labels, inertia (in squared units of the points), and how they were found.

    Raises:
        UserError: an option is out of range, k does not fit, or points are not finite (their rows are named); what
            depends on the values of arrays is not checked inside `jit` or `vmap`.

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
    check_options(k, init, restarts, max_iterations, tol)
    options, initial = make_options(k, init, restarts, max_iterations, exhaustive, axis_name)
    if any(isinstance(array, jax.core.Tracer) for array in (key, points, weights, initial)):
        return solve(key, points, weights, initial, jnp.float32(tol), options).result
    return solve_soundly(run_solve, key, points, weights, initial, tol, options)


def kmeans_once(
    key: Key[Array, "s"], points: Num[Array, "s n d"], k: int, *, weights: Num[Array, "s n"], restarts: int
) -> KMeansResult:
    """`kmeans`, compiled sooner where the points are few."""
    options, _ = make_options(k, "k-means++", restarts, 300, False, None)
    return solve_soundly(run_once, key, points, weights, None, 1e-4, options)


def make_options(
    k: int, init: Any, restarts: int, max_iterations: int, exhaustive: bool, axis_name: str | None
) -> tuple[KMeansOptions, Any]:
    """What is fixed under `jit`, and the initial centroids; None: a method draws them."""
    drawn = isinstance(init, str)
    options = KMeansOptions(
        k=k,
        restarts=restarts,
        max_iterations=max_iterations,
        random=drawn and init == "random",
        exhaustive=exhaustive,
        axis_name=axis_name,
    )
    return options, None if drawn else init


class Conditioned(NamedTuple):
    """Points as `origin + scale * rows`."""

    rows: Float[np.ndarray, "*s n d"]
    origin: Float[np.ndarray, "*s 1 d"]
    scale: Float[np.ndarray, "*s 1 1"]


def solve_soundly(
    run: Run, key: Array, points: Any, weights: Any, initial: Any, tol: float, options: KMeansOptions
) -> KMeansResult:
    """Solves problems in float32, and again in float64 where float32 may have put points into wrong clusters.

    Points of a type wider than float32 are centred and scaled first, and their centroids are float64.

    Raises:
        UserError: as for `kmeans`.
    """
    check_init(initial, points.shape, options.k)
    check_weights(weights, points.shape, options.k)
    given = None if str(points.dtype) in EXACT else condition(points, weights)
    start = None if initial is None else whole(initial).astype(np.float64)
    if given is not None and start is not None:
        start = (start - given.origin) / given.scale

    def solve_in(dtype: Any, options: KMeansOptions) -> Solved:
        rows = points.astype(np.float32) if given is None else given.rows.astype(dtype)
        return run(key, rows, weights, None if start is None else jnp.asarray(start, dtype), jnp.float32(tol), options)

    solved = solve_in(jnp.float32, options)
    check_finite(points, solved.result.inertia)
    if not to_host(solved.sound).all():
        with double_precision():
            solved = solve_in(jnp.float64, options._replace(double=True))
            if given is None:
                return jax.tree.map(_narrow, solved.result)
    return solved.result if given is None else _as_given(solved.result, given)


def condition(points: Any, weights: Any) -> Conditioned:
    """Centres and scales points in float64; a power of two keeps every digit. Those of weight 0 become 0."""
    wide = whole(points).astype(np.float64)
    counted = np.ones(wide.shape[:-1], bool) if weights is None else whole(weights) > 0
    wide = np.where(counted[..., None], wide, 0.0)
    origin = wide.sum(axis=-2, keepdims=True) / counted.sum(axis=-1)[..., None, None]
    rows = np.where(counted[..., None], wide - origin, 0.0)
    largest = np.abs(rows).max(axis=(-2, -1), keepdims=True)
    scale = np.ldexp(1.0, np.frexp(largest)[1])
    return Conditioned(rows / scale, origin, scale)


def _as_given(result: KMeansResult, given: Conditioned) -> KMeansResult:
    squared = given.scale[..., 0, 0] ** 2
    return result._replace(
        centroids=to_host(result.centroids).astype(np.float64) * given.scale + given.origin,
        inertia=to_host(result.inertia) * squared,
        restart_inertia=to_host(result.restart_inertia) * squared[..., None],
    )


def _narrow(leaf: Array) -> Array:
    return leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf


def assign_to(
    points: Float[np.ndarray, "n d"], centroids: Float[np.ndarray, "k d"], weights: Float[np.ndarray, "n"]
) -> tuple[Int32[np.ndarray, "n"], float]:
    """The nearest centroid of each point, whatever its weight, and the weighted inertia, in float64."""
    origin = centroids.mean(axis=0, dtype=np.float64)
    apart = centroids - origin
    scale = float(np.ldexp(1.0, np.frexp(np.abs(apart).max())[1]))
    with double_precision():
        labels, inertia = _assign_to(points, weights, origin, 1 / scale, apart / scale)
        return np.asarray(labels), float(inertia) * scale**2


@jax.jit
def _assign_to(
    points: Array, weights: Array, origin: Array, scale: Array, centroids: Array
) -> tuple[Int32[Array, "n"], Float[Array, ""]]:
    every = jnp.ones(points.shape[0])
    given = Points(points, every, origin, jnp.asarray(scale), jnp.int32(points.shape[0]))
    labels = assign(given, centroids, None).labels
    return labels, weights @ squared_norms(centred_rows(given) - centroids[labels])
