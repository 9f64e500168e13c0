# SPDX-License-Identifier: Apache-2.0
"""k-means of points that are sharded over devices."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Key

from ncjax.cluster.solver import KMeansResult, check_count, check_finite, kmeans
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_map


def sharded_kmeans(
    key: Key[Array, "*s"],
    points: Float[Array, "*s n d"],
    k: int,
    *,
    mesh: Mesh,
    axis_name: str = "data",
    weights: Float[Array, "*s n"] | None = None,
    init: Literal["k-means++", "random"] | Float[Array, "*s r k d"] = "k-means++",
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
    *problems, n, _ = points.shape
    weights = jnp.ones(points.shape[:-1], points.dtype) if weights is None else weights
    check_count(to_host(weights), k)
    padding = -n % mesh.shape[axis_name]
    if padding:
        whole = [(0, 0)] * len(problems)
        points, weights = jnp.pad(points, (*whole, (0, padding), (0, 0))), jnp.pad(weights, (*whole, (0, padding)))
    spec = P(*[None] * len(problems), axis_name)
    sharding = NamedSharding(mesh, spec)
    method, initial = (init, None) if isinstance(init, str) else ("k-means++", init)
    run = _compiled(mesh, spec, k, method, restarts, max_iterations, tol, exhaustive)
    result = run(key, jax.device_put(points, sharding), jax.device_put(weights, sharding), initial)
    check_finite(points, result.inertia)
    return result._replace(labels=result.labels[..., :n]) if padding else result


@cache
def _compiled(mesh: Mesh, spec: P, k: int, method: Any, *options: Any) -> Callable[..., KMeansResult]:
    names = ("restarts", "max_iterations", "tol", "exhaustive")

    def solve(key: Array, points: Array, weights: Array, initial: Array | None) -> KMeansResult:
        init: Any = method if initial is None else initial
        keywords = dict(zip(names, options, strict=True))
        return kmeans(key, points, k, weights=weights, init=init, axis_name=spec[-1], **keywords)

    specs: Any = [spec if name == "labels" else P() for name in KMeansResult._fields]
    inputs = (P(), spec, spec, P())
    return jax.jit(shard_map(solve, mesh=mesh, in_specs=inputs, out_specs=KMeansResult(*specs)))
