# SPDX-License-Identifier: Apache-2.0
"""The table of networks: a name of the config -> how that network is made."""

import jax.numpy as jnp
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.errors import find_named
from ncjax.models import cnn, densenet, mlp, resnet, vgg
from ncjax.models.network import ImageShape, Network

NETWORKS: dict[str, Network] = {
    "resnet18": resnet.RESNET18,
    "resnet34": resnet.RESNET34,
    "resnet50": resnet.RESNET50,
    "vgg11": vgg.VGG11,
    "vgg16": vgg.VGG16,
    "densenet": densenet.NETWORK,
    "cnn": cnn.NETWORK,
    "mlp": mlp.NETWORK,
}


def find_network(name: str) -> Network:
    """The network of this name.

    Raises:
        UserError: there is none.
    """
    return find_named(NETWORKS, name, "model.name")


def make_model(
    config: ModelConfig, image_shape: ImageShape, classes: int, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Module:
    """The network that `config` names, with fresh float32 weights; it computes in `dtype`.

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
        UserError: the name is unknown, or the images are too small for the network.
    """
    return find_network(config.name).make(config, image_shape, classes, dtype, rngs)
