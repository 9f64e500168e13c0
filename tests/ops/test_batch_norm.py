# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.ops.batch_norm import EPSILON, batch_norm


def plain(x, scale, bias):
    """The formula, for JAX to differentiate."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    broadcast = [a[None, None, None, :] for a in (mean, variance, scale, bias)]
    return (x - broadcast[0]) / jnp.sqrt(broadcast[1] + EPSILON) * broadcast[2] + broadcast[3]


@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_gradient_is_the_one_that_jax_derives(offset, relu, members):
    rng = np.random.default_rng(0)
    leading = (members,) if members else ()
    x, cotangent = (jnp.asarray(rng.normal(size=(*leading, 8, 5, 4, 3)), jnp.float32) for _ in range(2))
    scale, bias = (jnp.asarray(rng.normal(size=(*leading, 3)), jnp.float32) for _ in range(2))
    functions = (
        lambda *inputs: batch_norm(*inputs, relu)[0],
        lambda *inputs: jax.nn.relu(plain(*inputs)) if relu else plain(*inputs),
    )
    (ours, pullback), (derived, expected) = (
        jax.vjp(jax.jit(jax.vmap(function) if members else function), x + offset, scale, bias) for function in functions
    )
    assert (ours.min() >= 0) == relu
    np.testing.assert_allclose(ours, derived, atol=1e-5)
    for found, right in zip(pullback(cotangent), expected(cotangent), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())


def test_statistics_are_those_of_the_batch_and_have_no_gradient():
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (8, 5, 4, 3)), jnp.bfloat16)
    y, mean, variance = batch_norm(x, jnp.ones(3), jnp.zeros(3))
    assert y.dtype == jnp.bfloat16
    assert mean.dtype == variance.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.float32(x).mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, np.float32(x).var((0, 1, 2)), rtol=1e-4)
    gradient = jax.grad(lambda x: sum(part.sum() for part in batch_norm(x, jnp.ones(3), jnp.zeros(3))[1:]))(x)
    np.testing.assert_array_equal(gradient, 0)
