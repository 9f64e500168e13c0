# SPDX-License-Identifier: Apache-2.0
"""Our networks in PyTorch, as people write them: torchvision's names, for small images with the CIFAR stem."""

from torch import Tensor, nn

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.torch_port import cnn, densenet, mlp, resnet, vgg
from ncjax.torch_port.twin import ImageShape, Twin

TWINS: dict[str, Twin] = {
    "resnet18": resnet.BASIC,
    "resnet34": resnet.BASIC,
    "resnet50": resnet.BOTTLENECK,
    "vgg11": vgg.TWIN,
    "vgg16": vgg.TWIN,
    "densenet": densenet.TWIN,
    "cnn": cnn.TWIN,
    "mlp": mlp.TWIN,
}


def find_twin(name: str) -> Twin:
    """The twin of the network of this name.

    Raises:
        UserError: there is none.
    """
    if name not in TWINS:
        raise UserError(f"model.name is {name!r}, but networks with a PyTorch twin are {', '.join(TWINS)}")
    return TWINS[name]


def make_network(config: ModelConfig, image_shape: ImageShape, classes: int) -> nn.Module:
    """The twin of `ncjax.models.make_model(config, image_shape, classes)`; its weights are PyTorch's defaults.

    It maps float images `[b ch h w]` to logits `[b c]`. `logits_and_features` gives the features too.

    Raises:
        UserError: the network has no twin.
    """
    return find_twin(config.name).make(config, image_shape, classes)


def logits_and_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[b c]` and the input of the last linear layer `[b d]`, of any network that ends in one."""
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    inputs: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        return network(images), inputs[0]
    finally:
        hook.remove()
