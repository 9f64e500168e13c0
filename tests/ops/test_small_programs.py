# SPDX-License-Identifier: Apache-2.0
"""Options and branches by platform; the values are the same."""

import jax
import jax.numpy as jnp
import pytest

from ncjax.ops.small_programs import branch, jit_untuned, untuned


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("which", [True, False])
def test_a_branch_has_the_same_value_whether_both_are_computed_or_not(monkeypatch, platform, which):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    computed = []

    def side(name, value):
        def compute():
            computed.append(name)
            return jnp.full(3, value)

        return compute

    program = jax.jit(lambda which: branch(which, side("then", 1.0), side("otherwise", 2.0)))
    assert program(jnp.asarray(which)).tolist() == [1.0 if which else 2.0] * 3
    assert sorted(set(computed)) == ["otherwise", "then"]
    text = program.lower(jnp.asarray(which)).as_text()
    assert ("stablehlo.case" in text) == (platform == "cpu")


def test_on_cpus_nothing_is_asked_of_the_compiler():
    assert untuned() == {}
    double = jit_untuned(lambda x, by: by * x, static_argnames="by")
    assert double(jnp.ones(2), by=2).tolist() == [2.0, 2.0]
