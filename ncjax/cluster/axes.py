# SPDX-License-Identifier: Apache-2.0
"""The few axes that carry most of the points' variance, and the points on them."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ncjax.cluster.points import HIGHEST, Points, add_up, centred_rows, read_chunks, spread_rows, squared_norms

SAMPLE = 4096  # rows that the axes are found from
ROUNDS = 3  # of subspace iteration
SPARE = 8  # axes more during it


def principal_axes(points: Points, count: int, axis: str | None) -> Float[Array, "d m"]:
    """Orthonormal columns near the leading principal axes, by subspace iteration on evenly spaced rows.

    Where the points lie in fewer dimensions, the columns left over are 0.
    """
    d = points.rows.shape[1]
    sample = spread_rows(points, SAMPLE, axis)
    rows = jnp.sqrt(sample.weights)[:, None] * centred_rows(sample)

    def iterate(_: Array, basis: Array) -> Array:
        image = jnp.matmul(rows.T, jnp.matmul(rows, basis, precision=HIGHEST), precision=HIGHEST)
        return _orthonormal(add_up(image, axis))

    start = jax.random.normal(jax.random.key(0), (d, min(d, count + SPARE)), rows.dtype)
    return _orthonormal(lax.fori_loop(0, ROUNDS, iterate, start))[:, :count]


def _orthonormal(vectors: Array) -> Array:
    """An orthonormal basis of the columns, strongest first, by the eigenvectors of their products."""
    vectors = vectors / jnp.maximum(jnp.abs(vectors).max(), jnp.finfo(vectors.dtype).tiny)
    values, turned = jnp.linalg.eigh(jnp.matmul(vectors.T, vectors, precision=HIGHEST))
    kept = values > 1e-6 * values[-1]
    scale = jnp.where(kept, lax.rsqrt(jnp.where(kept, values, 1.0)), 0.0)
    return jnp.matmul(vectors, (turned * scale[None, :])[:, ::-1], precision=HIGHEST)


def rotate(points: Points, basis: Float[Array, "d m"], axis: str | None) -> tuple[Points, Float[Array, ""]]:
    """The points on the axes, and the sum of their weighted squared lengths in all dimensions."""
    m = basis.shape[1]

    def read(first: Array, x: Array, w: Array, seen: tuple[Array, Array]) -> tuple[Array, Array]:
        rows = jnp.matmul(x, basis, precision=HIGHEST)
        return lax.dynamic_update_slice(seen[0], rows, (first, jnp.int32(0))), seen[1] + w @ squared_norms(x)

    start = jnp.zeros((points.rows.shape[0], m), basis.dtype), jnp.zeros((), basis.dtype)
    rows, energy = read_chunks(points, m, read, start)
    return points._replace(rows=rows, centre=None), add_up(energy, axis)
