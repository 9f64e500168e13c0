# SPDX-License-Identifier: Apache-2.0
"""Programs of many runs: one run alone and among others, on one device and on eight, and in memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.theory import sweep as sweep_module
from ncjax.theory.config import (
    DescentConfig,
    MixtureConfig,
    NetworkConfig,
    Settings,
    TheoryConfig,
    settings_of,
    shapes_of,
)
from ncjax.theory.simulate import make_problem, record_steps, simulate
from ncjax.theory.sweep import (
    RunGroup,
    group_inputs,
    list_groups,
    make_program,
    read_means,
    run_bytes,
    runs_of,
    step_bytes,
)


def small(**changed):
    base = TheoryConfig(
        name="small",
        seeds=3,
        mixture=MixtureConfig(dimension=(6,), train=(24,), test=12, noise=(0.2, 0.5), label_noise=(0.1,)),
        network=NetworkConfig(width=(10,), init_scale=(0.1,)),
        descent=DescentConfig(steps=30, records=4, lr=(0.1, 0.3), restarts=0, batch=8),
    )
    return dataclasses.replace(base, **changed)


def test_a_run_is_the_same_alone_and_vectorized_on_one_device_and_on_eight(monkeypatch):
    config, (shape,) = small(), shapes_of(small())
    inputs = group_inputs(config, RunGroup(shape, 0, 12))
    single = jax.jit(lambda settings, seed: simulate(config, shape, settings, seed))
    alone = [single(Settings(*(jnp.asarray(column[i]) for column in inputs[0])), inputs[1][i]) for i in (0, 7)]
    found = [make_program(config, shape, 12, devices=1)(*inputs, None)]  # vectorized
    monkeypatch.setattr(sweep_module, "CACHE_BYTES", 0)
    found.append(make_program(config, shape, 12, devices=8)(*inputs, None))  # sequential
    for name, values in found[0].metrics.items():
        assert values.shape == (12, len(record_steps(config.descent)))
        for other in found[1:]:
            np.testing.assert_allclose(other.metrics[name], values, rtol=2e-3, atol=2e-5, err_msg=name)
        for i, run in zip((0, 7), alone, strict=True):
            np.testing.assert_allclose(run.metrics[name], values[i], rtol=2e-3, atol=2e-5, err_msg=name)
    assert np.ptp(found[0].metrics["train_loss"][:, -1]) > 0


def test_seeds_begin_at_the_first():
    (shape,) = shapes_of(small())
    seeds = group_inputs(small(seed=7), RunGroup(shape, 0, 12))[1]
    assert seeds.tolist() == runs_of(small(seed=7))["seed"].tolist() == [7, 8, 9] * 4


def test_means_of_a_file_are_used(tmp_path):
    np.save(tmp_path / "means.npy", np.eye(4, 6)[[0, 0, 1, 1]])
    mixture = MixtureConfig(dimension=(6,), train=(8,), means="file", means_file=str(tmp_path / "means.npy"))
    config = small(mixture=mixture, seeds=1)
    means, (shape,) = read_means(config, 6), shapes_of(config)
    problem = make_problem(config, shape, settings_of(config)[0], jnp.uint32(0), jnp.asarray(means))
    np.testing.assert_array_equal(problem.means, np.eye(4, 6)[[0, 0, 1, 1]])


def test_groups_fit_the_memory_whatever_the_number_of_runs():
    config = small(seeds=25_000)
    groups = list_groups(config)
    assert sum(group.runs for group in groups) == 100_000
    assert max(group.runs for group in groups) <= 256
    (shape,) = shapes_of(config)
    few = dataclasses.replace(config, memory_gib=10 * run_bytes(config, shape) / 2**30)
    assert max(group.runs for group in list_groups(few)) == 10
    assert step_bytes(config, shape) < run_bytes(config, shape)
    assert len(settings_of(config)) == 4
