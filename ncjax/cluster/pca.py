# SPDX-License-Identifier: Apache-2.0
"""The leading principal axes of the points, the points projected on them, and the points that show both."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from ncjax.cluster.points import Points, centred_rows, fold_chunks, squared_norms, subsample, sum_over_devices
from ncjax.ops.linalg import eigh, orthonormal_basis
from ncjax.ops.products import matmul

SUBSAMPLE_ROWS = 4096  # that the axes are computed from
ITERATIONS = 3  # of the subspace
OVERSAMPLING = 8  # more axes during the iteration


def principal_axes(key: Key[Array, ""], points: Points, count: int, axis_name: str | None) -> Float[Array, "d m"]:
    """Orthonormal columns near the leading principal axes, by subspace iteration on rows drawn by `far_chances`."""
    d = points.rows.shape[1]
    sample = subsample(key, points, SUBSAMPLE_ROWS, axis_name, far_chances(points, axis_name))
    rows = jnp.sqrt(sample.weights)[:, None] * centred_rows(sample)
    over = None if sample is not points else axis_name

    def covariance_times(basis: Array) -> Array:
        return sum_over_devices(matmul(rows.T, matmul(rows, basis)), over)

    def iterate(_: Array, basis: Array) -> Array:
        return orthonormal_basis(covariance_times(basis))

    start = jax.random.normal(jax.random.key(0), (d, min(d, count + OVERSAMPLING)), rows.dtype)
    basis = lax.fori_loop(0, ITERATIONS, iterate, orthonormal_basis(start))
    rotation = eigh(matmul(basis.T, covariance_times(basis)))[1]
    return matmul(basis, rotation[:, ::-1][:, :count])


def far_chances(points: Points, axis_name: str | None) -> Float[Array, "n"]:
    """Chances of which half are equal and half in proportion to the squared distance to the centre, times the weight.

    What lies far counts in the inertia however rare it is, and so it is drawn (Bachem, Lucic and Krause 2018).
    """

    def update(first: Array, x: Array, w: Array, carry: Array) -> Array:
        return lax.dynamic_update_slice(carry, squared_norms(x), (first,))

    squares = points.weights * fold_chunks(points, 1, update, jnp.zeros(points.rows.shape[0], points.dtype))
    mass, total = (sum_over_devices(x.sum(), axis_name) for x in (points.weights, squares))
    return points.weights / mass + squares / jnp.where(total > 0, total, 1.0)


def project(points: Points, basis: Float[Array, "d m"], axis_name: str | None) -> tuple[Points, Float[Array, ""]]:
    """The points on the axes, and the sum of their weighted squared lengths in all dimensions."""
    m = basis.shape[1]

    def update(first: Array, x: Array, w: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rows = matmul(x, basis)
        return lax.dynamic_update_slice(carry[0], rows, (first, jnp.int32(0))), carry[1] + w @ squared_norms(x)

    init = jnp.zeros((points.rows.shape[0], m), basis.dtype), jnp.zeros((), basis.dtype)
    rows, total = fold_chunks(points, m, update, init)
    return points._replace(rows=rows, centre=None), sum_over_devices(total, axis_name)
