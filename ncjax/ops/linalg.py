# SPDX-License-Identifier: Apache-2.0
"""Decompositions of one matrix; on CPUs `vmap` takes one matrix after the other.

jaxlib gives the matrices of a batch to the threads of XLA's pool and waits for them in one of these threads. As many
batched decompositions at the same time as there are threads, two on two cores, wait for each other for ever.

On TPUs eigenvalues are found by Jacobi's rotations: XLA compiles JAX's default for minutes at 512 x 512, and refuses it
in float64, as QR.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

from ncjax.ops.products import gram, matmul

P = ParamSpec("P")
T = TypeVar("T")


def one_thread_each() -> AbstractContextManager[Any]:
    """A context in which each decomposition on a CPU has one thread of its library's.

    Several would wait for each other in busy loops where they have no cores to themselves: beside another program of
    JAX, decompositions of 512 x 512 took up to seven times as long on two cores, and no less alone.
    """
    import scipy.linalg  # noqa: F401  JAX decomposes with its library, which has to be loaded to be limited
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


def _without_batches(decompose: Callable[P, T]) -> Callable[P, T]:
    one_by_one: Any = sequential_vmap(decompose)

    @wraps(decompose)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        found: T = (one_by_one if jax.default_backend() == "cpu" else decompose)(*args, **kwargs)
        return found

    return call


@_without_batches
def eigh(matrix: Float[Array, "d d"]) -> tuple[Float[Array, "d"], Float[Array, "d d"]]:
    """Eigenvalues of a symmetric matrix, the least first, and eigenvectors as columns."""
    if jax.default_backend() == "tpu":
        return _rotated(matrix)
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@_without_batches
def eigvalsh(matrix: Float[Array, "d d"]) -> Float[Array, "d"]:
    """Eigenvalues of a symmetric matrix, the least first."""
    return _rotated(matrix)[0] if jax.default_backend() == "tpu" else jnp.linalg.eigvalsh(matrix)


def _rotated(matrix: Float[Array, "d d"]) -> tuple[Float[Array, "d"], Float[Array, "d d"]]:
    """`eigh` by Jacobi's rotations, on TPUs."""
    methods = getattr(jax.lax.linalg, "EighImplementation", None)  # not in JAX 0.8
    options: dict[str, Any] = {"implementation": methods.JACOBI} if methods else {}
    vectors, values = jax.lax.linalg.eigh(matrix, **options)
    return values, vectors


@_without_batches
def svd(matrix: Float[Array, "n m"]) -> tuple[Float[Array, "n k"], Float[Array, "k"], Float[Array, "k m"]]:
    """`U`, the singular values, the largest first, and `V^T`, with `k = min(n, m)`."""
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right


@_without_batches
def singular_values(matrix: Float[Array, "n m"]) -> Float[Array, "k"]:
    """The singular values, the largest first."""
    return jnp.linalg.svd(matrix, compute_uv=False)


@_without_batches
def qr(matrix: Float[Array, "n m"]) -> tuple[Float[Array, "n k"], Float[Array, "k m"]]:
    """`Q` with orthonormal columns and an upper triangular `R`, with `k = min(n, m)`."""
    basis, rest = jnp.linalg.qr(matrix)
    return basis, rest


@_without_batches
def orthonormal_basis(matrix: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Orthonormal columns with the span of those of a matrix with no more columns than rows, of full rank."""
    if jax.default_backend() == "tpu" and matrix.dtype == jnp.float64:
        return basis_by_products(matrix)
    return jnp.linalg.qr(matrix)[0]


def basis_by_products(matrix: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """`orthonormal_basis` from the eigenvectors of products, twice (Stathopoulos and Wu 2002)."""
    for _ in range(2):
        lengths = jnp.linalg.norm(matrix, axis=0)
        unit = matrix / lengths[None, :]
        values, vectors = eigh(gram(unit))
        matrix = (
            matmul(unit, vectors) / jnp.sqrt(jnp.maximum(values, values[-1] * jnp.finfo(values.dtype).eps))[None, :]
        )
    return matrix


@_without_batches
def triangular_factor(matrix: Float[Array, "n m"]) -> Float[Array, "k m"]:
    """`R` of `qr`."""
    return jnp.linalg.qr(matrix, mode="r")


@_without_batches
def inverse_cholesky(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """`L^-1` of a positive definite matrix `L L^T`."""
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return jax.lax.linalg.triangular_solve(jnp.linalg.cholesky(matrix), identity, left_side=True, lower=True)


@_without_batches
def solve_positive(matrix: Float[Array, "d d"], right: Float[Array, "d k"]) -> Float[Array, "d k"]:
    """`matrix^-1 right` of a positive definite matrix."""
    return jax.scipy.linalg.solve(matrix, right, assume_a="pos")
