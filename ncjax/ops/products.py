# SPDX-License-Identifier: Apache-2.0
"""Products of matrices in full float32 precision, which accelerators do not use by default."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

HIGHEST = lax.Precision.HIGHEST
NARROW = 128  # columns: products of fewer are slower than what symmetry saves


def matmul(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`jnp.matmul(a, b)` in full precision."""
    return jnp.matmul(a, b, precision=HIGHEST)


def gram(rows: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """`X^T X`, of which what symmetry gives is not computed: 5/8 of the products where `d` is large."""
    half, odd = divmod(rows.shape[1], 2)
    if odd or half < NARROW:
        return matmul(rows.T, rows)
    left, right = rows[:, :half], rows[:, half:]
    corner = matmul(left.T, right)
    return jnp.block([[gram(left), corner], [corner.T, gram(right)]])
