# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twin of `ncjax.models.cnn`."""

import torch
from torch import Tensor, nn

from ncjax.config import ModelConfig
from ncjax.torch_port.twin import ImageShape, Layer, Twin, conv, numbered


class CNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm, the last two of stride 2."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 3), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, 2 * width, 3, 2), nn.BatchNorm2d(2 * width)
        self.conv3, self.bn3 = conv(2 * width, 4 * width, 3, 2), nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.relu(self.bn3(self.conv3(x))).mean((2, 3)))


def _make(config: ModelConfig, image_shape: ImageShape, classes: int) -> CNN:
    return CNN(config.width, image_shape[2], classes)


def _names(config: ModelConfig) -> dict[Layer, str]:
    del config
    return {("head", "linear"): "fc"} | numbered((), "")


TWIN = Twin(_make, _names)
