# SPDX-License-Identifier: Apache-2.0
"""Unit vectors near and far from 0, and their moments."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.collapse.units import merge_units, unit_moments, unit_origin, unit_vectors
from ncjax.storage.arrays import Frame

Z = np.random.default_rng(0).normal(size=(60, 5))
Z[7] = 0
Y = jnp.arange(60, dtype=jnp.int32) % 3


@pytest.mark.parametrize("length", [0.0, 1.0, 1e3, 1e6, 1e9])
def test_unit_vectors_equal_float64(length):
    """In float64 an origin of 1e9 leaves seven digits of what differs."""
    origin = length * np.array([0.6, 0, 0, 0.8, 0])
    found, zero = unit_vectors(jnp.asarray(Z, jnp.float32), unit_origin(Frame(origin)))
    x = Z + origin
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    wanted = x / np.where(lengths > 0, lengths, 1)
    wanted = (wanted - origin / length) * length if length else wanted
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 if length < 1e9 else 1e-3 * length / 1e9)
    assert np.flatnonzero(zero).tolist() == ([] if length else [7])


def test_moments_of_halves_merge_into_those_of_the_whole():
    x, ones = jnp.asarray(Z, jnp.float32), jnp.ones(60)
    first, second, whole = (
        unit_moments(x[part], Y[part], ones[part], 3, None) for part in (slice(20), slice(20, 60), slice(60))
    )
    counts = [jnp.bincount(Y[part], length=3).astype(jnp.float32) for part in (slice(20), slice(20, 60))]
    merged = merge_units(first, second, *counts)
    np.testing.assert_allclose(merged.means, whole.means, atol=1e-6)
    np.testing.assert_allclose(merged.squares, whole.squares, rtol=1e-5)
    assert float(whole.squares[1]) > 1  # the example that is 0 is at distance 1 from all others
