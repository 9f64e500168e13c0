# SPDX-License-Identifier: Apache-2.0
"""The leading principal axes of the points, and the points projected on them."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ncjax.cluster.points import Points, centred_rows, fold_chunks, squared_norms, subsample, sum_over_devices
from ncjax.ops.products import matmul

SUBSAMPLE_ROWS = 4096  # that the axes are computed from
ITERATIONS = 3  # of the subspace
OVERSAMPLING = 8  # more axes during the iteration


def principal_axes(points: Points, count: int, axis_name: str | None) -> Float[Array, "d m"]:
    """Orthonormal columns near the leading principal axes, by subspace iteration on evenly spaced rows.

    Where the points span fewer dimensions, the remaining columns are 0.
    """
    d = points.rows.shape[1]
    sample = subsample(points, SUBSAMPLE_ROWS, axis_name)
    rows = jnp.sqrt(sample.weights)[:, None] * centred_rows(sample)

    def iterate(_: Array, basis: Array) -> Array:
        return _orthonormal(sum_over_devices(matmul(rows.T, matmul(rows, basis)), axis_name))

    start = jax.random.normal(jax.random.key(0), (d, min(d, count + OVERSAMPLING)), rows.dtype)
    return _orthonormal(lax.fori_loop(0, ITERATIONS, iterate, start))[:, :count]


def _orthonormal(vectors: Array) -> Array:
    """An orthonormal basis of the span of the columns, largest eigenvalue first, from their Gram matrix."""
    vectors = vectors / jnp.maximum(jnp.abs(vectors).max(), jnp.finfo(vectors.dtype).tiny)
    values, eigenvectors = jnp.linalg.eigh(matmul(vectors.T, vectors))
    kept = values > 1e-6 * values[-1]
    scale = jnp.where(kept, lax.rsqrt(jnp.where(kept, values, 1.0)), 0.0)
    return matmul(vectors, (eigenvectors * scale[None, :])[:, ::-1])


def project(points: Points, basis: Float[Array, "d m"], axis_name: str | None) -> tuple[Points, Float[Array, ""]]:
    """The points on the axes, and the sum of their weighted squared lengths in all dimensions."""
    m = basis.shape[1]

    def update(first: Array, x: Array, w: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rows = matmul(x, basis)
        return lax.dynamic_update_slice(carry[0], rows, (first, jnp.int32(0))), carry[1] + w @ squared_norms(x)

    init = jnp.zeros((points.rows.shape[0], m), basis.dtype), jnp.zeros((), basis.dtype)
    rows, total = fold_chunks(points, m, update, init)
    return points._replace(rows=rows, centre=None), sum_over_devices(total, axis_name)
