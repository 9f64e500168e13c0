# SPDX-License-Identifier: Apache-2.0
"""VGG with BatchNorm for small images (Simonyan and Zisserman 2015; one linear layer after the convolutions)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.config import ModelConfig
from ncjax.models.architecture import Architecture
from ncjax.models.layers import ConvNorm, Head, module_list, pooled
from ncjax.models.network import ImageShape, Outputs

STAGES = {"vgg11": (1, 1, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}  # convolutions between poolings
WIDTHS = (1, 2, 4, 8, 8)  # of the stages, in units of the first


class VGG(nnx.Module):
    """Five stages of `relu(norm(conv3x3 + bias))`, each followed by 2x2 max pooling; mean pooling; linear head.

    At width 64, with ten classes and three input channels, VGG-11 has 9,231,114 weights and VGG-16 14,728,266. Features
    have `8 * width` dimensions. Pooling keeps the last row of an odd side (PyTorch's `ceil_mode`), so that images of
    any size pass; on 32x32 it is the usual pooling.
    """

    def __init__(
        self, counts: tuple[int, ...], width: int, channels: int, classes: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.dtype = dtype
        stages = []
        for factor, count in zip(WIDTHS, counts, strict=True):
            layers = []
            for _ in range(count):
                layers.append(ConvNorm(channels, factor * width, 3, bias=True, dtype=dtype, rngs=rngs))
                channels = factor * width
            stages.append(module_list(layers))
        self.stages = module_list(stages)
        self.head = Head(channels, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w ch"], train: bool = False) -> Outputs:
        x = x.astype(self.dtype)
        outputs = {}
        for number, stage in enumerate(self.stages, start=1):
            for layer in stage:
                x = layer(x, train, relu=True)
            x = nnx.max_pool(x, (2, 2), (2, 2), "SAME")
            outputs[f"stage{number}"] = pooled(x)
        return outputs | self.head(x.mean(axis=(1, 2)))


def _network(counts: tuple[int, ...]) -> Architecture:
    def make(config: ModelConfig, image_shape: ImageShape, classes: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> VGG:
        return VGG(counts, config.width, image_shape[2], classes, dtype=dtype, rngs=rngs)

    return Architecture(make)


VGG11, VGG16 = (_network(STAGES[name]) for name in ("vgg11", "vgg16"))
