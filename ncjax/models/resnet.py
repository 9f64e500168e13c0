# SPDX-License-Identifier: Apache-2.0
"""ResNet with basic blocks and the CIFAR stem (He et al. 2016; a 3x3 stem of stride 1 and no pooling)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.models.layers import ConvNorm, Head


class BasicBlock(nnx.Module):
    """`relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))`; the shortcut is a 1x1 convolution where shapes change."""

    def __init__(self, channels: int, filters: int, stride: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.first = ConvNorm(channels, filters, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(filters, filters, 3, dtype=dtype, rngs=rngs)
        changes = stride != 1 or channels != filters
        self.shortcut = ConvNorm(channels, filters, 1, stride=stride, dtype=dtype, rngs=rngs) if changes else None

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b p q o"]:
        residual = x if self.shortcut is None else self.shortcut(x, train)
        return jax.nn.relu(self.second(jax.nn.relu(self.first(x, train)), train) + residual)


class ResNet(nnx.Module):
    """Stem, four stages of basic blocks with widths `width * (1, 2, 4, 8)`, global average pooling, linear head.

    `blocks=(2, 2, 2, 2)` and `width=64` is ResNet-18: 11,173,962 weights with ten classes and three input channels.
    Features have `8 * width` dimensions.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        channels: int,
        classes: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.dtype = dtype
        self.stem = ConvNorm(channels, width, 3, dtype=dtype, rngs=rngs)
        stack: list[BasicBlock] = []
        filters = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                stack.append(BasicBlock(filters, width * 2**stage, stride, dtype=dtype, rngs=rngs))
                filters = width * 2**stage
        self.blocks = nnx.List(stack) if hasattr(nnx, "List") else stack
        self.head = Head(filters, classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w ch"], train: bool = False
    ) -> tuple[Float[Array, "b c"], Float[Array, "b d"]]:
        x = jax.nn.relu(self.stem(x.astype(self.dtype), train))
        for block in self.blocks:
            x = block(x, train)
        return self.head(x.mean(axis=(1, 2)))
