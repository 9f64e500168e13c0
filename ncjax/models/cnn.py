# SPDX-License-Identifier: Apache-2.0
"""A plain convolutional network for small images."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.config import ModelConfig
from ncjax.models.architecture import Architecture
from ncjax.models.layers import ConvNorm, Head, pooled
from ncjax.models.network import ImageShape, Outputs


class CNN(nnx.Module):
    """Three `relu(norm(conv3x3))` of widths `width * (1, 2, 4)`, the last two of stride 2; mean pooling; linear head.

    Features have `4 * width` dimensions.
    """

    def __init__(self, width: int, channels: int, classes: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.dtype = dtype
        self.first = ConvNorm(channels, width, 3, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(width, 2 * width, 3, stride=2, dtype=dtype, rngs=rngs)
        self.third = ConvNorm(2 * width, 4 * width, 3, stride=2, dtype=dtype, rngs=rngs)
        self.head = Head(4 * width, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w ch"], train: bool = False) -> Outputs:
        x = x.astype(self.dtype)
        stages = {}
        for name in ("first", "second", "third"):
            x = getattr(self, name)(x, train, relu=True)
            stages[name] = pooled(x)
        return stages | self.head(x.mean(axis=(1, 2)))


def _make(config: ModelConfig, image_shape: ImageShape, classes: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> CNN:
    return CNN(config.width, image_shape[2], classes, dtype=dtype, rngs=rngs)


NETWORK = Architecture(_make)
