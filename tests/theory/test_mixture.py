# SPDX-License-Identifier: Apache-2.0
"""Draws of a mixture have the means, the covariance and the shares of its config."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.theory.config import MixtureConfig, Settings
from ncjax.theory.mixture import component_shares, draw_means, draw_sample, noise_factor


def numbers(**changed):
    base = Settings(
        angle=90.0,
        norm=1.0,
        noise=0.0,
        imbalance=1.0,
        label_noise=0.0,
        gain=1.0,
        init_scale=1.0,
        lr=0.1,
        weight_decay=0.0,
    )
    return base._replace(**changed)


@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0, 120.0])
def test_means_have_the_angle_in_a_label_and_are_orthogonal_between_labels(angle):
    config = MixtureConfig(labels=3, components=3, means="angle")
    means = np.asarray(draw_means(jax.random.key(0), config, 12, numbers(angle=angle, norm=2.0)))
    label = np.arange(9) // 3
    expected = np.where(label[:, None] == label, np.cos(np.deg2rad(angle)), 0.0)
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(means @ means.T, 4 * expected, atol=4e-3 if angle == 0 else 5e-6)


def test_means_that_are_orthonormal_on_the_sphere_and_of_the_user():
    key, sphere = jax.random.key(1), MixtureConfig(means="sphere", components=3)
    means = np.asarray(draw_means(key, MixtureConfig(), 4, numbers(angle=30.0)))
    np.testing.assert_allclose(means @ means.T, np.eye(4), atol=1e-6)
    drawn = np.asarray(draw_means(key, sphere, 5, numbers(norm=3.0)))
    np.testing.assert_allclose((drawn**2).sum(axis=1), 9.0, rtol=1e-5)
    assert np.abs(drawn @ drawn.T)[~np.eye(6, dtype=bool)].max() > 1
    read, config = jnp.arange(8.0).reshape(4, 2), MixtureConfig(means="file", means_file="means.npy")
    np.testing.assert_array_equal(draw_means(key, config, 2, numbers(norm=2.0), read), 2 * read)


@pytest.mark.parametrize("covariance", ["isotropic", "diagonal", "low_rank"])
def test_noise_has_the_covariance_and_the_length_that_are_asked_for(covariance):
    config, d = MixtureConfig(covariance=covariance, rank=2), 6
    factor = noise_factor(jax.random.key(2), config, d)
    settings, means = numbers(noise=0.5), jnp.zeros((4, d))
    sample = draw_sample(jax.random.key(3), config, settings, means, factor, 40_000, 0.0)
    found = np.cov(np.asarray(sample.inputs, np.float64).T)
    variances = np.sort(np.linalg.eigvalsh(found))[::-1]
    expected = {
        "isotropic": np.full(d, 1 / d),
        "diagonal": (1 / np.arange(1, 7)) / (1 / np.arange(1, 7)).sum(),
        "low_rank": np.array([0.5, 0.5, 0, 0, 0, 0]),
    }
    np.testing.assert_allclose(variances, 0.25 * expected[covariance], rtol=0.04, atol=1e-6)
    if covariance == "diagonal":
        np.testing.assert_allclose(np.diag(found), 0.25 * expected[covariance], rtol=0.04)


def test_counts_follow_the_imbalance():
    config = MixtureConfig(labels=3, components=2)
    np.testing.assert_allclose(component_shares(config, 4.0), np.repeat([4, 2, 1], 2) / 14, rtol=1e-6)
    factor, means = noise_factor(jax.random.key(0), config, 6), jnp.eye(6)
    sample = draw_sample(jax.random.key(0), config, numbers(imbalance=4.0), means, factor, 140, 0.0)
    np.testing.assert_array_equal(np.bincount(sample.component), [40, 40, 20, 20, 10, 10])
    np.testing.assert_array_equal(sample.label, np.asarray(sample.component) // 2)
    np.testing.assert_array_equal(sample.inputs, np.eye(6)[np.asarray(sample.component)])


def test_label_noise_gives_other_labels_alike():
    config = MixtureConfig(labels=3, components=1)
    factor, means = noise_factor(jax.random.key(0), config, 3), jnp.eye(3)
    sample = draw_sample(jax.random.key(4), config, numbers(), means, factor, 30_000, 0.3)
    table = np.zeros((3, 3))
    np.add.at(table, (np.asarray(sample.component), np.asarray(sample.label)), 1 / 10_000)
    np.testing.assert_allclose(table, np.where(np.eye(3) > 0, 0.7, 0.15), atol=0.015)
