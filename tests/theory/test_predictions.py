# SPDX-License-Identifier: Apache-2.0
"""Closed forms against Monte Carlo and quadrature; predictions against simulations that know nothing of them."""

import dataclasses

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ncjax.theory.config import DescentConfig, MixtureConfig, NetworkConfig, TheoryConfig, settings_of, shapes_of
from ncjax.theory.predictions import cosines, frozen_moments, predict
from ncjax.theory.simulate import record_steps
from ncjax.theory.sweep import RunGroup, group_inputs, make_program


@pytest.mark.parametrize("g", [0.0, 0.3, 1.0, 4.0])
def test_moments_are_their_integrals(g):
    def above(power, low, shift):
        return quad(lambda u: (u + shift) ** power * norm.pdf(u), low, 40, epsabs=1e-13)[0]

    expected = (above(1, 0, g), above(2, 0, g), above(1, g, -g), above(2, g, -g))
    np.testing.assert_allclose(frozen_moments(np.array(g)), expected, rtol=1e-9, atol=1e-13)


def test_cosines_are_those_of_drawn_units():
    u = np.random.default_rng(0).standard_normal((2, 2_000_000))
    sign = np.where(np.arange(u.shape[1]) % 2 == 0, 1.0, -1.0)

    def activation(row, agrees, g):
        return np.where(agrees, (row + g) * (row > 0), np.maximum(row - g, 0))

    for g in (0.0, 0.5, 2.0):
        one, sibling = activation(u[0], sign > 0, g), activation(u[1], sign > 0, g)
        stranger = activation(u[1], sign < 0, g)
        found = [one @ x / np.sqrt((one @ one) * (x @ x)) for x in (sibling, stranger)]
        np.testing.assert_allclose(found, np.ravel(cosines(frozen_moments(np.array([g])))), atol=3e-3)


def test_cosines_go_from_one_over_pi_to_a_half_and_to_zero():
    same, other = cosines(frozen_moments(np.array([0.0, 1e5])))
    np.testing.assert_allclose(same, [1 / np.pi, 0.5], atol=1e-5)
    np.testing.assert_allclose(other, [1 / np.pi, 0.0], atol=1e-12)
    same, other = cosines(frozen_moments(np.linspace(0, 30, 300)))
    assert (np.diff(same) > 0).all()
    assert (np.diff(other) <= 0).all()


def sweep_config(prediction, *, width, seeds, steps, noise=(0.0,), network=None, **descent):
    noisy = max(noise) > 0
    mixture = {"dimension": (256,)} if noisy else {"dimension": (8,), "train": (4,), "test": 4}
    return TheoryConfig(
        seeds=seeds,
        prediction=prediction,
        mixture=MixtureConfig(noise=noise, **mixture),
        network=NetworkConfig(width=(width,), **{"init_scale": (0.1,), **(network or {})}),
        descent=DescentConfig(**{"steps": steps, "lr": (0.05,), "restarts": 0, "records": 12, **descent}),
    )


def simulated_and_predicted(config):
    (shape,), settings = shapes_of(config), settings_of(config)
    count = len(settings) * config.seeds
    found = make_program(config, shape, count)(*group_inputs(config, RunGroup(shape, 0, count)), None)
    assert not found.diverged.any()
    steps = record_steps(config.descent)
    for number, setting in enumerate(settings):
        rows = slice(number * config.seeds, (number + 1) * config.seeds)
        yield {name: x[rows].mean(axis=0) for name, x in found.metrics.items()}, predict(config, shape, setting, steps)


@pytest.mark.parametrize(
    "network",
    [{}, pytest.param({"scaling": "sqrt", "symmetric": True, "gain": (0.02,)}, marks=pytest.mark.slow)],
)
def test_frozen_gates_hold_in_the_simulation(network):
    config = sweep_config("frozen", width=2048, seeds=16, steps=600, weight_decay=(0.0, 0.05), network=network)
    for found, expected in simulated_and_predicted(config):
        assert expected.push[-1] > 10
        np.testing.assert_allclose(found["cosine_gaussians"], expected.cosine_gaussians, rtol=0.03)
        np.testing.assert_allclose(found["cosine_labels"], expected.cosine_labels, atol=0.02)
        np.testing.assert_allclose(found["train_loss"], expected.train_loss, rtol=0.01)
        for name in ("between_gaussians", "between_labels"):
            np.testing.assert_allclose(found[name], getattr(expected, name), rtol=0.04)


@pytest.mark.slow
def test_frozen_gates_hold_within_two_per_cent_at_width_8192_over_32_seeds():
    config = sweep_config("frozen", width=8192, seeds=32, steps=2000, weight_decay=(0.0, 0.05))
    for found, expected in simulated_and_predicted(config):
        np.testing.assert_allclose(found["cosine_gaussians"], expected.cosine_gaussians, rtol=0.02)
        np.testing.assert_allclose(found["cosine_labels"], expected.cosine_labels, atol=0.006)


def test_lazy_network_keeps_its_distances_while_the_loss_falls():
    network = {"scaling": "sqrt", "symmetric": True, "gain": (10.0,), "init_scale": (1.0,)}
    config = sweep_config("lazy", width=4096, seeds=16, steps=600, network=network)
    ((found, expected),) = simulated_and_predicted(config)
    np.testing.assert_allclose(found["train_loss"], expected.train_loss, rtol=0.02)
    assert expected.train_loss[-1] < 0.4 * expected.train_loss[0]
    assert np.ptp(expected.cosine_gaussians) == 0
    for name in ("cosine_gaussians", "cosine_labels", "between_gaussians", "between_labels"):
        np.testing.assert_allclose(found[name], getattr(expected, name), rtol=0.04)


def test_leaky_gates_without_noise_are_frozen():
    config = sweep_config("leaky", width=64, seeds=1, steps=400, weight_decay=(0.05,))
    frozen = dataclasses.replace(config, prediction="frozen")
    steps, (shape,), (settings,) = record_steps(config.descent), shapes_of(config), settings_of(config)
    for leaky, still in zip(
        predict(config, shape, settings, steps), predict(frozen, shape, settings, steps), strict=True
    ):
        np.testing.assert_allclose(leaky, still, rtol=0.01, atol=2e-4)


@pytest.mark.slow
def test_leaky_gates_hold_in_the_simulation():
    config = sweep_config(
        "leaky", width=512, seeds=2, steps=600, noise=(0.2, 0.4), network={"init_scale": (1.0,)}, lr=(0.1,),
        weight_decay=(0.05,),
    )  # fmt: skip
    for found, expected in simulated_and_predicted(config):
        assert expected.cosine_gaussians[-1] > 0.7
        np.testing.assert_allclose(found["cosine_gaussians"], expected.cosine_gaussians, atol=0.05)
        np.testing.assert_allclose(found["within"], expected.within, rtol=0.25)
        np.testing.assert_allclose(found["train_loss"], expected.train_loss, rtol=0.08)


def test_no_prediction_where_none_is_asked_for():
    config = TheoryConfig()
    assert predict(config, shapes_of(config)[0], settings_of(config)[0], np.array([0, 1])) is None
