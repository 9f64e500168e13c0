# SPDX-License-Identifier: Apache-2.0
"""Flax NNX networks. Each maps images to `(logits, features)`; features are the input of the final linear layer."""

import jax.numpy as jnp
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.models.cnn import CNN
from ncjax.models.mlp import MLP
from ncjax.models.resnet import ResNet


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
    """
    match config.name:
        case "resnet18":
            return ResNet((2, 2, 2, 2), config.width, image_shape[2], classes, dtype=dtype, rngs=rngs)
        case "cnn":
            return CNN(config.width, image_shape[2], classes, dtype=dtype, rngs=rngs)
        case "mlp":
            height, width, channels = image_shape
            return MLP(config.width, height * width * channels, classes, dtype=dtype, rngs=rngs)
