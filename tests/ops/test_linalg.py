# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.ops import linalg
from ncjax.ops.precision import double_precision

MATRICES = np.random.default_rng(0).normal(size=(3, 6, 6)).astype(np.float32)
SYMMETRIC = MATRICES @ MATRICES.swapaxes(1, 2) + np.eye(6, dtype=np.float32)
# Six batches in one program, 50 times: batched decompositions of jaxlib wait for each other in the first.
MANY = """
import jax, jax.numpy as jnp
from ncjax.ops.linalg import singular_values
many = jax.jit(lambda batches: [jax.vmap(singular_values)(batch) for batch in batches])
batches = [jax.random.normal(jax.random.key(i), (8, 64, 64)) for i in range(6)]
for _ in range(50):
    found = jax.block_until_ready(many(batches))
print(len(found))
"""


def rebuilt(found):
    """The matrices again."""
    left, values, right = found
    return np.einsum("sik,sk,skj->sij", left, values, right)


@pytest.mark.parametrize("jit", [False, True])
def test_of_a_batch_each_matrix_is_decomposed(jit):
    wrap = (lambda f: jax.jit(jax.vmap(f))) if jit else jax.vmap
    values, vectors = wrap(linalg.eigh)(SYMMETRIC)
    wanted = np.linalg.eigvalsh(SYMMETRIC.astype(np.float64))
    np.testing.assert_allclose(values, wanted, rtol=1e-4)
    np.testing.assert_allclose(rebuilt((vectors, values, vectors.mT)), SYMMETRIC, atol=1e-4)
    np.testing.assert_allclose(wrap(linalg.eigvalsh)(SYMMETRIC), wanted, rtol=1e-4)
    np.testing.assert_allclose(rebuilt(wrap(linalg.svd)(MATRICES)), MATRICES, atol=1e-5)
    np.testing.assert_allclose(
        wrap(linalg.singular_values)(MATRICES), np.linalg.svd(MATRICES, compute_uv=False), atol=1e-5
    )
    basis, rest = wrap(linalg.qr)(MATRICES)
    np.testing.assert_allclose(basis @ rest, MATRICES, atol=1e-5)
    np.testing.assert_allclose(jnp.abs(wrap(linalg.triangular_factor)(MATRICES)), jnp.abs(rest), atol=1e-5)
    inverse = wrap(linalg.inverse_cholesky)(SYMMETRIC)
    np.testing.assert_allclose(inverse.mT @ inverse, np.linalg.inv(SYMMETRIC), rtol=1e-3, atol=1e-4)
    solved = wrap(linalg.solve_positive)(SYMMETRIC, MATRICES)
    np.testing.assert_allclose(SYMMETRIC @ solved, MATRICES, atol=1e-4)


def test_of_a_batch_of_batches_too():
    found = jax.vmap(jax.vmap(linalg.eigvalsh))(SYMMETRIC[None].repeat(2, axis=0))
    np.testing.assert_allclose(found[1], np.linalg.eigvalsh(SYMMETRIC), rtol=1e-4)


@pytest.mark.parametrize("condition", [1e0, 1e3, 1e6])
def test_a_basis_by_products_is_orthonormal_and_spans_the_same(condition):
    """In float64, for TPUs, whose compiler has no QR there."""
    left, right = (np.linalg.qr(np.random.default_rng(i).normal(size=(size, 5)))[0] for i, size in enumerate((40, 5)))
    matrix = left * np.geomspace(1, 1 / condition, 5) @ right.T
    with double_precision():
        basis = np.asarray(linalg.basis_by_products(jnp.asarray(matrix)))
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(basis @ basis.T, left @ left.T, atol=1e-8)


def test_batches_at_the_same_time_do_not_wait_for_each_other():
    alone = {"NPROC": "2", "PJRT_NPROC": "2", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", MANY]
    ended = subprocess.run(command, env={**os.environ, **alone}, capture_output=True, timeout=120)
    assert ended.stdout.strip() == b"6"
