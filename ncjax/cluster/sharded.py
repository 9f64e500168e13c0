# SPDX-License-Identifier: Apache-2.0
"""k-means of points that are sharded over devices."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Key, Num

from ncjax.cluster.checks import check_options
from ncjax.cluster.in_memory import make_options, solve_soundly
from ncjax.cluster.search import KMeansOptions
from ncjax.cluster.solver import KMeansResult, Solved, solve
from ncjax.distributed.sharding import shard_map
from ncjax.ops.small_programs import untuned


def sharded_kmeans(
    key: Key[Array, "*s"],
    points: Num[Array | np.ndarray, "*s n d"],
    k: int,
    *,
    mesh: Mesh,
    axis_name: str = "data",
    weights: Num[Array | np.ndarray, "*s n"] | None = None,
    init: Literal["k-means++", "random"] | Float[Array | np.ndarray, "*s r k d"] = "k-means++",
    restarts: int = 10,
    max_iterations: int = 300,
    tol: float = 1e-4,
    exhaustive: bool = False,
) -> KMeansResult:
    """`kmeans` with the points of each problem sharded over a mesh axis; only sums are communicated, never points.

    The result equals that of one device up to the rounding of sums; the labels are sharded as the points are.

    Args:
        key: as for `kmeans`.
        points: sharded over the axis already, or sharded here. Where their number is not a multiple of the number of
            devices, a copy is padded with points of weight 0.
        k: as for `kmeans`.
        mesh: devices.
        axis_name: the axis of the mesh over which the points are sharded.
        weights: as for `kmeans`.
        init: as for `kmeans`.
        restarts: as for `kmeans`.
        max_iterations: as for `kmeans`.
        tol: as for `kmeans`.
        exhaustive: as for `kmeans`.

    Raises:
        UserError: as for `kmeans`.
    """
    check_options(k, init, restarts, max_iterations, tol)
    *problems, n, _ = points.shape
    padding = -n % mesh.shape[axis_name]
    if padding:
        whole = [(0, 0)] * len(problems)
        weights = np.ones(points.shape[:-1], np.float32) if weights is None else weights
        pad = np.pad if isinstance(points, np.ndarray) else jnp.pad  # which would round float64
        points, weights = pad(points, (*whole, (0, padding), (0, 0))), jnp.pad(weights, (*whole, (0, padding)))
    options, initial = make_options(k, init, restarts, max_iterations, exhaustive, axis_name)
    run = partial(_run, mesh, P(*[None] * len(problems), axis_name))
    result = solve_soundly(run, key, points, weights, initial, tol, options)
    return result._replace(labels=result.labels[..., :n]) if padding else result


def _run(
    mesh: Mesh, spec: P, key: Array, points: Any, weights: Any, initial: Any, tol: Array, options: KMeansOptions
) -> Solved:
    sharding = NamedSharding(mesh, spec)
    weights = jnp.ones(points.shape[:-1], jnp.float32) if weights is None else weights
    placed = jax.device_put(points, sharding), jax.device_put(weights, sharding)
    return _compiled(mesh, spec, options)(key, *placed, initial, tol)


@cache
def _compiled(mesh: Mesh, spec: P, options: KMeansOptions) -> Callable[..., Solved]:
    fields: Any = [spec if name == "labels" else P() for name in KMeansResult._fields]
    everywhere: Any = P()
    inputs = (P(), spec, spec, P(), P())
    run = partial(solve, options=options)
    outputs = Solved(KMeansResult(*fields), everywhere)
    return jax.jit(shard_map(run, mesh=mesh, in_specs=inputs, out_specs=outputs), compiler_options=untuned())
