# SPDX-License-Identifier: Apache-2.0
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.ops import xla


@partial(xla.jit_by_size, static_argnames="power")
def sums(x, power):
    return (x**power).sum(axis=0)


@pytest.mark.parametrize("most", [0, 2**22])
def test_small_and_large_problems_have_the_same_results(most, monkeypatch):
    monkeypatch.setattr(xla, "BRIEF", most)
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    np.testing.assert_allclose(sums(jnp.asarray(x), power=2), (x.astype(np.float64) ** 2).sum(axis=0), rtol=1e-5)


def test_only_small_problems_are_compiled_quickly(monkeypatch):
    asked = []
    monkeypatch.setattr(xla, "_quick_compilation", lambda: asked.append(1) or {})
    monkeypatch.setattr(xla, "BRIEF", 10)
    double = xla.jit_by_size(lambda x: 2 * x)
    assert double(jnp.ones(11)).sum() == 22
    assert not asked
    assert double(jnp.ones(10)).sum() == 20
    assert double(jnp.ones(9)).sum() == 18
    assert asked == [1]


def test_deterministic_programs_are_asked_for_on_gpus_alone(monkeypatch):
    assert xla.compiler_options(True) == xla.compiler_options(False)
    xla.compiler_options.cache_clear()
    try:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert xla.compiler_options(True) == {xla.DETERMINISTIC: True}
        assert xla.compiler_options(False) == {}
    finally:
        xla.compiler_options.cache_clear()


def test_xla_knows_the_option():
    """It would refuse an unknown one."""
    program = jax.jit(jnp.negative).lower(1.0).compile(compiler_options={xla.DETERMINISTIC: True})
    assert program(1.0) == -1
    with pytest.raises(RuntimeError):
        jax.jit(jnp.negative).lower(1.0).compile(compiler_options={f"{xla.DETERMINISTIC}_x": True})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "--xla_gpu_deterministic_ops=true"),
        ("--xla_a=1", "--xla_a=1 --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
        ("flags.txt", "flags.txt"),
    ],
)
def test_the_flag_of_all_programs_is_set_once(before, after, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", before)
    xla.make_deterministic()
    xla.make_deterministic()
    assert os.environ["XLA_FLAGS"] == after
