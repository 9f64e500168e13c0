# SPDX-License-Identifier: Apache-2.0
"""Batch normalization with a gradient that keeps nothing but the input in memory."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPSILON = 1e-5
AXES = (0, 1, 2)
Normalised = tuple[Float[Array, "b h w c"], Float[Array, "c"], Float[Array, "c"]]


@jax.custom_vjp
def batch_norm(x: Float[Array, "b h w c"], scale: Float[Array, "c"], bias: Float[Array, "c"]) -> Normalised:
    """`scale * (x - mean) / sqrt(variance + 1e-5) + bias`, mean and variance over all axes but the last.

    Only the first of the three results has a gradient. With `r = 1 / sqrt(variance + 1e-5)` and cotangent `g`, over the
    `n` values of a channel: `by_bias = sum(g)`, `by_scale = r * (sum(g * x) - mean * sum(g))` and
    `by_x = r * scale * (g - by_bias / n - (x - mean) * r * by_scale / n)`. It needs two sums for each channel; what JAX
    derives keeps `x - mean` in memory too. Statistics are float32, the result is of the type of `x`.

    Returns:
        The normalized input, and the mean and the (biased) variance of each channel.
    """
    return _normalise(x, scale, bias)[0]


def _normalise(x: Array, scale: Array, bias: Array) -> tuple[Normalised, tuple[Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(AXES, keepdims=True)
    variance = jnp.maximum(0, (wide * wide).mean(AXES, keepdims=True) - mean * mean)
    rate = lax.rsqrt(variance + EPSILON)
    y = (wide - mean) * (rate * scale[None, None, None, :]) + bias[None, None, None, :]
    return (y.astype(x.dtype), mean.reshape(-1), variance.reshape(-1)), (x, scale, mean, rate)


def _gradients(saved: tuple[Array, ...], cotangents: Normalised) -> tuple[Array, Array, Array]:
    x, scale, mean, rate = saved
    wide, cotangent = x.astype(jnp.float32), cotangents[0].astype(jnp.float32)
    by_bias = cotangent.sum(AXES, keepdims=True)
    by_scale = rate * ((cotangent * wide).sum(AXES, keepdims=True) - mean * by_bias)
    count = x.size // x.shape[-1]
    inner = cotangent - by_bias / count - (wide - mean) * (rate * by_scale / count)
    by_x = rate * scale[None, None, None, :] * inner
    return by_x.astype(x.dtype), by_scale.reshape(-1), by_bias.reshape(-1)


batch_norm.defvjp(_normalise, _gradients)
