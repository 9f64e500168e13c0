# SPDX-License-Identifier: Apache-2.0
"""Batch normalization, with a ReLU behind it or not, and a gradient that keeps nothing but the input in memory."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPSILON = 1e-5
AXES = (0, 1, 2)
Normalised = tuple[Float[Array, "b h w c"], Float[Array, "c"], Float[Array, "c"]]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    x: Float[Array, "b h w c"], scale: Float[Array, "c"], bias: Float[Array, "c"], relu: bool = False
) -> Normalised:
    """`scale * (x - mean) / sqrt(variance + 1e-5) + bias`, mean and variance over all axes but the last.

    Only the first of the three results has a gradient. With `r = 1 / sqrt(variance + 1e-5)` and cotangent `g`, over the
    `n` values of a channel: `by_bias = sum(g)`, `by_scale = r * (sum(g * x) - mean * sum(g))` and
    `by_x = r * scale * (g - by_bias / n - (x - mean) * r * by_scale / n)`. It needs two sums for each channel; what JAX
    derives keeps `x - mean` in memory too. Statistics are float32, the result is of the type of `x`.

    Args:
        x: images or feature maps.
        scale: of each channel.
        bias: of each channel.
        relu: the result is `max(0, ...)`. The gradient finds where it is 0 by computing it again from `x`, once for the
            sums and once for `by_x`: the cotangent with these zeros is never written to memory.

    Returns:
        The normalized input, and the mean and the (biased) variance of each channel.
    """
    return _normalise(x, scale, bias, relu)[0]


def _normalise(x: Array, scale: Array, bias: Array, relu: bool) -> tuple[Normalised, tuple[Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(AXES, keepdims=True)
    variance = jnp.maximum(0, (wide * wide).mean(AXES, keepdims=True) - mean * mean)
    rate = lax.rsqrt(variance + EPSILON)
    y = _scaled(x, scale, bias, mean, rate)
    y = jnp.maximum(y, 0) if relu else y
    return (y, mean.reshape(-1), variance.reshape(-1)), (x, scale, bias, mean, rate)


def _scaled(x: Array, scale: Array, bias: Array, mean: Array, rate: Array) -> Float[Array, "b h w c"]:
    wide = x.astype(jnp.float32)
    y = (wide - mean) * (rate * scale[None, None, None, :]) + bias[None, None, None, :]
    return y.astype(x.dtype)


def _gradients(relu: bool, saved: tuple[Array, ...], cotangents: Normalised) -> tuple[Array, Array, Array]:
    x, scale, bias, mean, rate = saved
    wide, cotangent = x.astype(jnp.float32), cotangents[0].astype(jnp.float32)
    again = wide, cotangent
    if relu:
        cotangent = jnp.where(_scaled(x, scale, bias, mean, rate) > 0, cotangent, 0)
        x, behind = lax.optimization_barrier((x, cotangents[0]))  # or XLA computes it once, and writes it to memory
        behind = jnp.where(_scaled(x, scale, bias, mean, rate) > 0, behind, 0)
        again = x.astype(jnp.float32), behind.astype(jnp.float32)
    by_bias = cotangent.sum(AXES, keepdims=True)
    by_scale = rate * ((cotangent * wide).sum(AXES, keepdims=True) - mean * by_bias)
    count = x.size // x.shape[-1]
    wide, cotangent = again
    inner = cotangent - by_bias / count - (wide - mean) * (rate * by_scale / count)
    by_x = rate * scale[None, None, None, :] * inner
    return by_x.astype(x.dtype), by_scale.reshape(-1), by_bias.reshape(-1)


batch_norm.defvjp(_normalise, _gradients)
