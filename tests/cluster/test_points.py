# SPDX-License-Identifier: Apache-2.0
"""Samples are unbiased whatever the order of the rows, and points are centred and scaled in any unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.cluster import points as points_module
from ncjax.cluster.points import centre_if_small, centred_rows, make_points

subsample = jax.jit(points_module.subsample, static_argnums=(2, 3))


def points_of(rows, weights):
    return make_points(jnp.asarray(rows, jnp.float32), jnp.asarray(weights, jnp.float32), None)


@pytest.mark.parametrize("period", [2, 7, 10, 16, 50, 100])
def test_rows_in_turns_are_drawn_alike(period):
    n, count = 5000, 1000
    points = points_of(np.arange(n)[:, None] % period, np.ones(n))
    drawn = [subsample(jax.random.key(seed), points, count, None) for seed in range(20)]
    turns = np.concatenate([np.asarray(one.rows[:, 0] / one.scale + points.centre[0]) for one in drawn]).round()
    shares = np.bincount(turns.astype(int), minlength=period) / len(turns)
    np.testing.assert_allclose(shares, 1 / period, atol=5 * np.sqrt(1 / period / len(turns)))


@pytest.mark.parametrize("kind", ["ones", "mask", "few", "heavy tail", "one heavy"])
@pytest.mark.parametrize("by_distance", [False, True])
def test_weighted_sums_over_samples_are_those_of_all_rows(kind, by_distance):
    rng = np.random.default_rng(0)
    n, count = 3000, 300
    weights = {
        "ones": np.ones(n),
        "mask": np.arange(n) % 2,
        "few": np.isin(np.arange(n), [5, 700, 2999]),
        "heavy tail": rng.pareto(1.5, n),
        "one heavy": np.where(np.arange(n) == 17, 1e4, 1.0),
    }[kind].astype(np.float32)
    points = points_of(rng.normal(size=(n, 1)), weights)
    values = np.asarray(centred_rows(points))[:, 0].astype(np.float64)
    chances = jnp.asarray(weights * (1 + 3 * values**2), jnp.float32) if by_distance else None
    drawn = [subsample(jax.random.key(seed), points, count, None, chances) for seed in range(200)]
    for power in (0, 1, 2):
        sums = [float(np.asarray(one.weights, np.float64) @ np.asarray(one.rows[:, 0]) ** power) for one in drawn]
        wanted = weights.astype(np.float64) @ values**power
        error = np.std(sums) / np.sqrt(len(sums)) + 1e-5 * (weights @ np.abs(values) ** power)
        assert abs(np.mean(sums) - wanted) < 5 * error, power
    assert all((np.asarray(one.weights) > 0).all() for one in drawn)


@pytest.mark.parametrize("unit", [1e-20, 1e-8, 1.0, 1e8, 1e18])
@pytest.mark.parametrize("offset", [0.0, 1.0, -1e4])
def test_centred_rows_are_of_the_size_of_one_in_any_unit(unit, offset):
    rng = np.random.default_rng(1)
    rows = ((rng.normal(size=(2000, 3)) + offset) * unit).astype(np.float32)
    weights = (np.arange(2000) % 3 > 0).astype(np.float32)
    points = centre_if_small(points_of(rows, weights))
    found = np.asarray(points.rows, np.float64)
    counted = weights > 0
    wanted = rows[counted].astype(np.float64)
    wanted = (wanted - wanted.mean(axis=0)) * float(points.scale)
    np.testing.assert_allclose(found[counted], wanted, atol=1e-5 * max(1, abs(offset)))
    assert 0.25 < np.abs(found).max() <= 1
    assert (found[~counted] == 0).all()
