# SPDX-License-Identifier: Apache-2.0
"""A plain convolutional network for small images."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.models.layers import ConvNorm, Head


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

    def __call__(
        self, x: Float[Array, "b h w ch"], train: bool = False
    ) -> tuple[Float[Array, "b c"], Float[Array, "b d"]]:
        x = x.astype(self.dtype)
        for layer in (self.first, self.second, self.third):
            x = jax.nn.relu(layer(x, train))
        return self.head(x.mean(axis=(1, 2)))
