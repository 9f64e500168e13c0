# SPDX-License-Identifier: Apache-2.0
"""The kernel, interpreted, against all distances in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.ops import pallas
from ncjax.ops.nearest import nearest_centroids


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    pytest.importorskip("jax.experimental.pallas.triton")
    monkeypatch.setattr(pallas, "INTERPRET", True)


def problem(n, d, k, seed=0, largest=1.0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-1, 1, (n, d)).astype(np.float32)
    return rows, (largest * rng.uniform(-1, 1, (k, d))).astype(np.float32)


def scores_of(rows, centroids):
    wide = centroids.astype(np.float64)
    return (wide**2).sum(axis=1) / 2 - rows.astype(np.float64) @ wide.T


@pytest.mark.parametrize(("n", "d", "k"), [(128, 16, 64), (300, 7, 100), (65, 130, 70), (1, 1, 1), (129, 256, 65)])
def test_two_halves_are_as_exact_as_float32(n, d, k):
    for largest in (1.0, 1e-3, 1e6):
        agrees(*problem(n, d, k, largest=largest))


def agrees(rows, centroids):
    (n, _), k = rows.shape, len(centroids)
    found = jax.jit(nearest_centroids)(rows, centroids)
    wanted = scores_of(rows, centroids)
    rounding = 4 * np.finfo(np.float32).eps * ((rows**2).sum(axis=1).max() + (centroids**2).sum(axis=1).max()) / 2
    two = np.sort(wanted, axis=1)[:, :2] if k > 1 else np.hstack([wanted, np.full((n, 1), np.inf)])
    np.testing.assert_allclose(found.first, two[:, 0], atol=rounding)
    np.testing.assert_allclose(found.second, two[:, 1], atol=rounding)
    own = wanted[np.arange(n), np.asarray(found.label)]
    np.testing.assert_allclose(own, two[:, 0], atol=2 * rounding)


def test_one_half_is_as_exact_as_float16():
    rows, centroids = problem(500, 32, 100)
    wanted = scores_of(rows, centroids)
    found = jax.jit(nearest_centroids, static_argnums=2)(rows, centroids, 1)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(centroids, axis=1).max()
    off = wanted[np.arange(500), np.asarray(found.label)] - wanted.min(axis=1)
    assert (off <= 2 * 2**-11 * lengths).all()
    assert np.abs(np.asarray(found.first) - wanted.min(axis=1)).max() > 1e-5  # so it is not the other


def test_numbers_of_very_different_size_keep_their_digits():
    rows, centroids = problem(200, 16, 64)
    rows[::2] *= 1e-4  # an outlier sets the scale of the others
    centroids[::2] *= 1e-4
    wanted = scores_of(rows, centroids)
    found = jax.jit(nearest_centroids)(rows, centroids)
    np.testing.assert_allclose(np.asarray(found.first)[::2], wanted.min(axis=1)[::2], rtol=1e-5, atol=1e-12)


def test_of_equal_centroids_the_first_is_nearest():
    rows, _ = problem(130, 8, 1)
    centroids = np.tile(rows[:1], (150, 1))
    found = jax.jit(nearest_centroids)(rows, centroids)
    assert (np.asarray(found.label) == 0).all()
    np.testing.assert_array_equal(found.first, found.second)


def test_several_sets_of_centroids_under_vmap():
    rows, centroids = problem(200, 8, 192)
    sets = jnp.asarray(centroids).reshape(3, 64, 8)
    together = jax.jit(jax.vmap(nearest_centroids, (None, 0)))(rows, sets)
    for i in range(3):
        alone = jax.jit(nearest_centroids)(rows, sets[i])
        np.testing.assert_array_equal(together.label[i], alone.label)
        np.testing.assert_array_equal(together.second[i], alone.second)


def test_what_is_not_a_number_is_not_hidden():
    rows, centroids = problem(130, 8, 64)
    rows[5, 3] = np.nan
    assert np.isnan(np.asarray(jax.jit(nearest_centroids)(rows, centroids).first)[5])
