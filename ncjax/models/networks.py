# SPDX-License-Identifier: Apache-2.0
"""The table of networks: a name of the config -> a function of the config that gives the network."""

from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.models import cnn, densenet, mlp, resnet, vgg
from ncjax.models.architecture import Architecture
from ncjax.models.network import ImageShape, Network
from ncjax.tables import find_named

Build = Callable[[ModelConfig, jnp.dtype], Network]  # dtype: of the forward and backward pass
FLOAT32 = jnp.dtype("float32")

NETWORKS: dict[str, Build] = {
    "resnet18": resnet.RESNET18,
    "resnet34": resnet.RESNET34,
    "resnet50": resnet.RESNET50,
    "vgg11": vgg.VGG11,
    "vgg16": vgg.VGG16,
    "densenet": densenet.NETWORK,
    "cnn": cnn.NETWORK,
    "mlp": mlp.NETWORK,
}


def find_network(config: ModelConfig, dtype: jnp.dtype = FLOAT32) -> Network:
    """The network that a config names; the same object for the same config.

    Raises:
        UserError: there is none of this name.
    """
    return _built(find_named(NETWORKS, config.name, "model.name"), config, dtype)


@cache
def _built(build: Build, config: ModelConfig, dtype: jnp.dtype) -> Network:
    return build(config, dtype)


def make_model(
    config: ModelConfig, image_shape: ImageShape, classes: int, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Module:
    """The module of the built-in network that `config` names, with fresh float32 weights; it computes in `dtype`.

    Example:
        >>> model = make_model(ModelConfig(name="mlp", width=8), (8, 8, 1), 10, jnp.dtype("float32"), nnx.Rngs(0))
        >>> {name: x.shape for name, x in model(jnp.zeros((2, 8, 8, 1)), train=False).items()}
        {'first': (2, 8), 'second': (2, 8), 'features': (2, 8), 'logits': (2, 10)}

    Args:
        config: architecture and width.
        image_shape: height, width and channels of an image.
        classes: outputs of the final linear layer.
        dtype: type of the forward pass; what the network returns is float32 whatever it is.
        rngs: source of the initial weights.

    Raises:
        UserError: the name is unknown or not built in, or the images are too small for the network.
    """
    architecture = find_named(NETWORKS, config.name, "model.name")
    if not isinstance(architecture, Architecture):
        raise UserError(f"model.name is {config.name!r}, which is no built-in network")
    return architecture.make(config, image_shape, classes, dtype, rngs)
