# SPDX-License-Identifier: Apache-2.0
"""Metrics of the hidden layer against all pairs of examples and the Hungarian method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.cluster import match_clusters
from ncjax.theory.config import DescentConfig, MixtureConfig, TheoryConfig
from ncjax.theory.hidden_metrics import coordinates, hidden_geometry, recovery


def test_hidden_geometry_is_that_of_all_pairs_of_examples():
    config = TheoryConfig(mixture=MixtureConfig(labels=2, components=3))
    rng = np.random.default_rng(0)
    component = np.repeat(np.arange(6), [5, 4, 3, 6, 2, 4])
    features = rng.standard_normal((6, 8))[component] + 0.3 * rng.standard_normal((24, 8)) + 1
    found = hidden_geometry(jnp.asarray(features, jnp.float32), jnp.asarray(component, jnp.int32), config)
    squares = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
    blocks = np.array([[squares[component == i][:, component == j].mean() for j in range(6)] for i in range(6)])
    means = np.array([features[component == i].mean(axis=0) for i in range(6)])
    cosines = means @ means.T / np.outer(*[np.linalg.norm(means, axis=1)] * 2)
    same = np.arange(6)[:, None] // 3 == np.arange(6) // 3
    siblings = same & ~np.eye(6, dtype=bool)
    assert found.within == pytest.approx(np.diag(blocks).mean(), rel=1e-4)
    assert found.between_gaussians == pytest.approx(blocks[siblings].mean(), rel=1e-4)
    assert found.between_labels == pytest.approx(blocks[~same].mean(), rel=1e-4)
    assert found.cosine_gaussians == pytest.approx(cosines[siblings].mean(), rel=1e-4)
    assert found.cosine_labels == pytest.approx(cosines[~same].mean(), rel=1e-4)
    assert found.nc1_fine < found.nc1_coarse


def test_fewer_coordinates_keep_all_inner_products():
    features = jax.random.normal(jax.random.key(0), (10, 50))
    few = coordinates(features)
    assert few.shape == (10, 10)
    np.testing.assert_allclose(few @ few.T, features @ features.T / 50, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(coordinates(features[:, :20]), features[:, :20] / 20**0.5)


def test_recovery_is_the_share_that_the_hungarian_method_finds():
    config = TheoryConfig(mixture=MixtureConfig(labels=2, components=3), descent=DescentConfig(restarts=3))
    component = np.repeat(np.arange(6), 10).astype(np.int32)
    corners = 9 * np.eye(6)[np.random.default_rng(1).permutation(6)]
    points = corners[component] + 0.1 * np.random.default_rng(2).standard_normal((60, 6))
    moved = points.copy()
    moved[:4] = corners[2]  # four of Gaussian 0 lie with Gaussian 2
    moved[30:33] = corners[5]
    found = recovery(jax.random.key(0), jnp.asarray(moved, jnp.float32), jnp.asarray(component), config)
    nearest = ((moved[:, None] - corners[None]) ** 2).sum(axis=-1).argmin(axis=1).astype(np.int32)
    allowed = np.arange(6)[:, None] // 3 == np.arange(6)[None] // 3
    assert found == pytest.approx((match_clusters(nearest, component, allowed)[nearest] == component).mean())
    assert found == pytest.approx(53 / 60)
