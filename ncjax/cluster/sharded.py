# SPDX-License-Identifier: Apache-2.0
"""k-means of points that are spread over devices."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Key

from ncjax.cluster.solver import KMeansResult, check_count, check_finite, kmeans
from ncjax.distributed.sharding import shard_map
from ncjax.distributed.processes import to_host


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
    """`kmeans` with the points of each problem spread over a mesh axis; sums go over the devices, points stay in place.

    The result is that of one device up to the rounding of sums; the labels stay spread as the points are.

    Args:
        key: as for `kmeans`.
        points: spread over the axis already, or spread here. Where their number is not a multiple of the devices', a
            copy is filled up with points of weight 0.
        k: as for `kmeans`.
        mesh: devices.
        axis_name: the axis of the mesh over which the points are spread.
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
    extra = -n % mesh.shape[axis_name]
    if extra:
        whole = [(0, 0)] * len(problems)
        points, weights = jnp.pad(points, (*whole, (0, extra), (0, 0))), jnp.pad(weights, (*whole, (0, extra)))
    spec = P(*[None] * len(problems), axis_name)
    spread = NamedSharding(mesh, spec)
    method, given = (init, None) if isinstance(init, str) else ("k-means++", init)
    run = _compiled(mesh, spec, k, method, restarts, max_iterations, tol, exhaustive)
    result = run(key, jax.device_put(points, spread), jax.device_put(weights, spread), given)
    check_finite(points, result.inertia)
    return result._replace(labels=result.labels[..., :n]) if extra else result


@cache
def _compiled(mesh: Mesh, spec: P, k: int, method: Any, *options: Any) -> Callable[..., KMeansResult]:
    names = ("restarts", "max_iterations", "tol", "exhaustive")

    def solve(key: Array, points: Array, weights: Array, given: Array | None) -> KMeansResult:
        init: Any = method if given is None else given
        keywords = dict(zip(names, options, strict=True))
        return kmeans(key, points, k, weights=weights, init=init, axis_name=spec[-1], **keywords)

    specs: Any = [spec if name == "labels" else P() for name in KMeansResult._fields]
    together = KMeansResult(*specs)
    inputs = (P(), spec, spec, P())
    return jax.jit(shard_map(solve, mesh=mesh, in_specs=inputs, out_specs=together))
