# SPDX-License-Identifier: Apache-2.0
"""Flax NNX networks. Each maps images to `(logits, features)`; features are the input of the final linear layer."""

import jax.numpy as jnp
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.models import resnet, vgg
from ncjax.models.cnn import CNN
from ncjax.models.densenet import DenseNet
from ncjax.models.mlp import MLP
from ncjax.models.resnet import BasicBlock, Bottleneck, ResNet
from ncjax.models.vgg import VGG


def make_model(
    config: ModelConfig, image_shape: tuple[int, int, int], classes: int, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Module:
    """The network that `config` names, with fresh float32 weights; it computes in `dtype`.

    Args:
        config: architecture and width.
        image_shape: height, width and channels of an image.
        classes: outputs of the final linear layer.
        dtype: type of the forward pass; logits and features are float32 whatever it is.
        rngs: source of the initial weights.

    Raises:
        UserError: the images are too small for the network.
    """
    height, width, channels = image_shape
    match config.name:
        case "resnet18" | "resnet34":
            return ResNet(
                BasicBlock, resnet.STAGES[config.name], config.width, channels, classes, dtype=dtype, rngs=rngs
            )
        case "resnet50":
            return ResNet(
                Bottleneck, resnet.STAGES[config.name], config.width, channels, classes, dtype=dtype, rngs=rngs
            )
        case "vgg11" | "vgg16":
            return VGG(vgg.STAGES[config.name], config.width, channels, classes, dtype=dtype, rngs=rngs)
        case "densenet":
            least = 2 ** (len(config.dense_blocks) - 1)
            if min(height, width) < least:
                raise UserError(
                    f"model.dense_blocks {config.dense_blocks} halves the side {len(config.dense_blocks) - 1} "
                    f"times, but an image is {height} x {width}; it needs {least} or more, or fewer blocks"
                )
            return DenseNet(config.dense_blocks, config.width, channels, classes, dtype=dtype, rngs=rngs)
        case "cnn":
            return CNN(config.width, channels, classes, dtype=dtype, rngs=rngs)
        case "mlp":
            return MLP(config.width, height * width * channels, classes, dtype=dtype, rngs=rngs)
