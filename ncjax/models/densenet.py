# SPDX-License-Identifier: Apache-2.0
"""DenseNet with bottlenecks and compression (Huang et al. 2017, DenseNet-BC), with the CIFAR stem."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.models.architecture import Architecture
from ncjax.models.layers import BatchNorm, Conv, Head, module_list, pooled
from ncjax.models.network import ImageShape, Outputs


class DenseLayer(nnx.Module):
    """Appends `growth` channels: `concat(x, conv3x3(relu(norm(conv1x1(relu(norm(x)))))))`, `4 * growth` in between."""

    def __init__(self, channels: int, growth: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.norm1 = BatchNorm(channels, dtype=dtype, rngs=rngs)
        self.conv1 = Conv(channels, 4 * growth, 1, rngs=rngs)
        self.norm2 = BatchNorm(4 * growth, dtype=dtype, rngs=rngs)
        self.conv2 = Conv(4 * growth, growth, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b h w o"]:
        new = self.conv1(self.norm1(x, train, relu=True))
        new = self.conv2(self.norm2(new, train, relu=True))
        return jnp.concatenate([x, new], axis=-1)


class Transition(nnx.Module):
    """`average_pool(conv1x1(relu(norm(x))))`, half as many channels and half the side, both rounded down."""

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.norm = BatchNorm(channels, dtype=dtype, rngs=rngs)
        self.conv = Conv(channels, channels // 2, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b p q o"]:
        return nnx.avg_pool(self.conv(self.norm(x, train, relu=True)), (2, 2), (2, 2))


class DenseNet(nnx.Module):
    """3x3 stem of `2 * growth` channels, blocks of dense layers, transitions between, `relu(norm)`, mean, linear head.

    With ten classes and three input channels: blocks (6, 12, 24, 16) and growth 32 are DenseNet-121 (6,956,298
    weights), (16, 16, 16) and growth 12 DenseNet-BC (L=100, k=12) of the paper (769,162).
    """

    def __init__(
        self, counts: tuple[int, ...], growth: int, channels: int, classes: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.dtype = dtype
        self.stem = Conv(channels, 2 * growth, 3, rngs=rngs)
        blocks, transitions, channels = [], [], 2 * growth
        for number, count in enumerate(counts):
            if number:
                transitions.append(Transition(channels, dtype=dtype, rngs=rngs))
                channels //= 2
            layers = [DenseLayer(channels + i * growth, growth, dtype=dtype, rngs=rngs) for i in range(count)]
            blocks.append(module_list(layers))
            channels += count * growth
        self.blocks, self.transitions = module_list(blocks), module_list(transitions)
        self.norm = BatchNorm(channels, dtype=dtype, rngs=rngs)
        self.head = Head(channels, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w ch"], train: bool = False) -> Outputs:
        x = self.stem(x.astype(self.dtype))
        stages = {"stem": pooled(x)}
        for number, block in enumerate(self.blocks):
            if number:
                x = self.transitions[number - 1](x, train)
            for layer in block:
                x = layer(x, train)
            stages[f"block{number + 1}"] = pooled(x)
        return stages | self.head(self.norm(x, train, relu=True).mean(axis=(1, 2)))


def _make(config: ModelConfig, image_shape: ImageShape, classes: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> DenseNet:
    (height, width, channels), blocks = image_shape, config.dense_blocks
    least = 2 ** (len(blocks) - 1)
    if min(height, width) < least:
        raise UserError(
            f"model.dense_blocks {blocks} halves the side {len(blocks) - 1} times, but an image is {height} x {width}; "
            f"it needs {least} or more, or fewer blocks"
        )
    return DenseNet(blocks, config.width, channels, classes, dtype=dtype, rngs=rngs)


NETWORK = Architecture(_make)
