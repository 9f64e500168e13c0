# SPDX-License-Identifier: Apache-2.0
"""Principal axes against NumPy's, also where a column, or a few rows, are of another scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.cluster.pca import principal_axes, project
from ncjax.cluster.points import make_points


def ten_axes(n):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 10)) * 3 @ rng.normal(size=(10, 60)) + rng.normal(size=(n, 60))


def one_large_column(n):
    points = ten_axes(n)
    points[:, 7] = 1e4 * np.random.default_rng(1).normal(size=n)
    return points


def a_few_far_rows(n):
    points = ten_axes(n)
    points[:: n // 5] += 1000 * np.random.default_rng(1).normal(size=60)
    return points


@pytest.mark.parametrize("n", [1000, 20_000])
@pytest.mark.parametrize("points", [ten_axes, one_large_column, a_few_far_rows], ids=lambda one: one.__name__)
def test_the_axes_hold_the_variance_that_the_best_axes_hold(points, n):
    rows = points(n)
    given = make_points(jnp.asarray(rows, jnp.float32), jnp.ones(n), None)
    basis = principal_axes(jax.random.key(0), given, 12, None)
    centred = (rows - rows.mean(axis=0)) * float(given.scale)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    found = ((centred @ np.asarray(basis, np.float64)) ** 2).sum(axis=0)
    np.testing.assert_allclose(np.asarray(basis).T @ np.asarray(basis), np.eye(12), atol=1e-5)
    left, best = values.sum() - found.sum(), values[12:].sum()
    assert left < 1.05 * best
    projected, total = project(given, basis, None)
    np.testing.assert_allclose(projected.rows, centred @ np.asarray(basis), atol=1e-4)
    assert float(total) == pytest.approx(values.sum(), rel=1e-4)


def test_axes_of_points_of_few_dimensions_are_orthonormal():
    points = make_points(jnp.asarray(np.outer(np.arange(200.0), np.ones(40)), jnp.float32), jnp.ones(200), None)
    basis = np.asarray(principal_axes(jax.random.key(0), points, 8, None))
    np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(np.abs(basis[:, 0]), 1 / np.sqrt(40), atol=1e-5)
