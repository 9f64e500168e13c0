# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twins of `ncjax.models.vgg`."""

from functools import partial

from torch import Tensor, nn

from ncjax.config import ModelConfig
from ncjax.models.vgg import STAGES, WIDTHS
from ncjax.torch_port.twin import ImageShape, Layer, Twin, conv, rename

# Names of the widely copied pytorch-cifar networks -> torchvision's.
RENAMES = ((r"^(linear|classifier\.0)\.", "classifier."),)


class VGG(nn.Module):
    """torchvision's VGG with BatchNorm; one linear layer follows the convolutions."""

    def __init__(self, counts: tuple[int, ...], width: int, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for factor, count in zip(WIDTHS, counts, strict=True):
            for _ in range(count):
                filters = factor * width
                layers += [conv(channels, filters, 3, bias=True), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _make(config: ModelConfig, image_shape: ImageShape, classes: int) -> VGG:
    return VGG(STAGES[config.name], config.width, image_shape[2], classes)


def _names(config: ModelConfig) -> dict[Layer, str]:
    names: dict[Layer, str] = {("head", "linear"): "classifier"}
    at = 0
    for stage, count in enumerate(STAGES[config.name]):
        for number in range(count):
            names["stages", stage, number, "conv"] = f"features.{at}"
            names["stages", stage, number, "norm"] = f"features.{at + 1}"
            at += 3
        at += 1
    return names


TWIN = Twin(_make, _names, to_torchvision=partial(rename, RENAMES))
