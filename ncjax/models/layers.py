# SPDX-License-Identifier: Apache-2.0
"""Layers that the networks share."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.models.conv import conv2d


class Conv(nnx.Module):
    """A convolution without bias, initialised as He et al. 2015 (normal, fan out)."""

    def __init__(self, channels: int, filters: int, size: int, *, stride: int = 1, rngs: nnx.Rngs) -> None:
        initialise = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(initialise(rngs.params(), (size, size, channels, filters), jnp.float32))
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b p q o"]:
        return conv2d(x, self.kernel[...].astype(x.dtype), stride=self.stride)


class ConvNorm(nnx.Module):
    """Convolution, then BatchNorm (momentum 0.9, epsilon 1e-5, statistics in float32)."""

    def __init__(
        self, channels: int, filters: int, size: int, *, stride: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.conv = Conv(channels, filters, size, stride=stride, rngs=rngs)
        self.norm = nnx.BatchNorm(filters, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b p q o"]:
        return self.norm(self.conv(x), use_running_average=not train)


class Head(nnx.Module):
    """The final linear layer, in float32: its input is what ncjax calls features."""

    def __init__(self, features: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "b d"]) -> tuple[Float[Array, "b c"], Float[Array, "b d"]]:
        features = x.astype(jnp.float32)
        return self.linear(features), features
