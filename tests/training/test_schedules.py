# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.training.loop import prepare
from ncjax.training.schedules import SCHEDULES, factor_at, find_schedule


def at(kind, step, total=300):
    return float(find_schedule(kind)(jnp.asarray(step), total))


@pytest.mark.parametrize(
    ("kind", "step", "expected"),
    [
        ("constant", 299, 1.0),
        ("step", 99, 1.0),
        ("step", 100, 0.1),
        ("step", 199, 0.1),
        ("step", 200, 0.01),
        ("cosine", 0, 1.0),
        ("cosine", 150, 0.5),
        ("cosine", 300, 0.0),
        ("one_cycle", 0, 1 / 25),
        ("one_cycle", 90, 1.0),
        ("one_cycle", 300, 1 / 250_000),
    ],
)
def test_values(kind, step, expected):
    assert at(kind, step) == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_short_runs_stay_in_range(kind, total):
    factors = [at(kind, step, total) for step in range(total + 1)]
    assert np.isfinite(factors).all()
    assert min(factors) >= 0
    assert max(factors) <= 1 + 1e-6


def test_unknown_schedule_is_named_with_those_that_are_known():
    with pytest.raises(UserError, match=r"^optim\.schedule is 'linear', but must be one of constant, step, cosine, "):
        at("linear", 0)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_factor_stays_that_of_the_last_step_after_the_end_of_the_schedule(kind):
    schedule = SCHEDULES[kind]
    factors = [float(factor_at(schedule, jnp.asarray(step), 10, 14)) for step in range(14)]
    assert factors[:10] == [float(schedule(jnp.asarray(step), 10)) for step in range(10)]
    assert factors[10:] == [factors[9]] * 4
    assert factors[:6] == [float(factor_at(schedule, jnp.asarray(step), 10, 6)) for step in range(6)]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warm_up_rises_linearly_to_the_schedule(kind):
    schedule = SCHEDULES[kind]
    plain = [float(factor_at(schedule, jnp.asarray(step), 20, 20)) for step in range(20)]
    warm = [float(factor_at(schedule, jnp.asarray(step), 20, 20, 4)) for step in range(20)]
    np.testing.assert_allclose(warm[:4], np.array([0.25, 0.5, 0.75, 1.0]) * plain[:4], rtol=1e-6)
    assert warm[4:] == plain[4:]


def test_a_run_warms_up_for_its_epochs(config, dataset):
    optim = dataclasses.replace(config.optim, schedule="constant", warmup_epochs=2)
    spec = prepare(dataclasses.replace(config, optim=optim), dataset).spec
    rising = [float(spec.lr_factor(jnp.asarray(step, jnp.int32))) for step in range(spec.total_steps)]
    steps = 2 * spec.steps_per_epoch
    np.testing.assert_allclose(rising[:steps], np.arange(1, steps + 1) / steps, rtol=1e-6)
    assert set(rising[steps:]) == {1.0}
