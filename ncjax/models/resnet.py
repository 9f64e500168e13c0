# SPDX-License-Identifier: Apache-2.0
"""ResNets with the CIFAR stem (He et al. 2016; a 3x3 stem of stride 1 and no pooling)."""

from itertools import accumulate

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.config import ModelConfig
from ncjax.models.architecture import Architecture
from ncjax.models.layers import ConvNorm, Head, module_list, pooled
from ncjax.models.network import ImageShape, Outputs

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}  # blocks of each stage


class BasicBlock(nnx.Module):
    """`relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))`; the shortcut is a 1x1 convolution where shapes change."""

    expansion = 1

    def __init__(self, channels: int, filters: int, stride: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.first = ConvNorm(channels, filters, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(filters, filters, 3, dtype=dtype, rngs=rngs)
        changes = stride != 1 or channels != filters
        self.shortcut = ConvNorm(channels, filters, 1, stride=stride, dtype=dtype, rngs=rngs) if changes else None

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b p q o"]:
        residual = x if self.shortcut is None else self.shortcut(x, train)
        return jax.nn.relu(self.second(self.first(x, train, relu=True), train) + residual)


class Bottleneck(nnx.Module):
    """A block of three convolutions, 1x1, 3x3 (which carries the stride) and 1x1 to four times the filters."""

    expansion = 4

    def __init__(self, channels: int, filters: int, stride: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        out = self.expansion * filters
        self.first = ConvNorm(channels, filters, 1, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(filters, filters, 3, stride=stride, dtype=dtype, rngs=rngs)
        self.third = ConvNorm(filters, out, 1, dtype=dtype, rngs=rngs)
        changes = stride != 1 or channels != out
        self.shortcut = ConvNorm(channels, out, 1, stride=stride, dtype=dtype, rngs=rngs) if changes else None

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b p q o"]:
        residual = x if self.shortcut is None else self.shortcut(x, train)
        x = self.first(x, train, relu=True)
        x = self.second(x, train, relu=True)
        return jax.nn.relu(self.third(x, train) + residual)


class ResNet(nnx.Module):
    """Stem, stages of blocks with filters `width * (1, 2, 4, 8)`, global average pooling, linear head.

    At width 64, with ten classes and three input channels, ResNet-18 has 11,173,962 weights, ResNet-34 21,282,122 and
    ResNet-50, of bottlenecks, 23,520,842. Features have `8 * width * expansion` dimensions.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: tuple[int, ...],
        width: int,
        channels: int,
        classes: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.dtype = dtype
        self.stem = ConvNorm(channels, width, 3, dtype=dtype, rngs=rngs)
        stack: list[BasicBlock | Bottleneck] = []
        channels = width
        for stage, count in enumerate(counts):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                stack.append(block(channels, width * 2**stage, stride, dtype=dtype, rngs=rngs))
                channels = block.expansion * width * 2**stage
        self.blocks = module_list(stack)
        self.ends = tuple(accumulate(counts))
        self.head = Head(channels, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w ch"], train: bool = False) -> Outputs:
        x = self.stem(x.astype(self.dtype), train, relu=True)
        stages = {"stem": pooled(x)}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, train)
            if number in self.ends:
                stages[f"stage{self.ends.index(number) + 1}"] = pooled(x)
        return stages | self.head(x.mean(axis=(1, 2)))


def _network(block: type[BasicBlock] | type[Bottleneck], counts: tuple[int, ...]) -> Architecture:
    def make(config: ModelConfig, image_shape: ImageShape, classes: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> ResNet:
        return ResNet(block, counts, config.width, image_shape[2], classes, dtype=dtype, rngs=rngs)

    return Architecture(make)


RESNET18 = _network(BasicBlock, STAGES["resnet18"])
RESNET34 = _network(BasicBlock, STAGES["resnet34"])
RESNET50 = _network(Bottleneck, STAGES["resnet50"])
