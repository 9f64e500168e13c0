# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twin of `ncjax.models.mlp`."""

import math

import torch
from torch import Tensor, nn

from ncjax.config import ModelConfig
from ncjax.torch_port.twin import ImageShape, Layer, Twin


class MLP(nn.Module):
    """Two hidden layers on flattened pixels, channel by channel."""

    def __init__(self, width: int, inputs: int, classes: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, width), nn.Linear(width, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))


def _make(config: ModelConfig, image_shape: ImageShape, classes: int) -> MLP:
    return MLP(config.width, math.prod(image_shape), classes)


def _names(config: ModelConfig) -> dict[Layer, str]:
    del config
    return {("first",): "fc1", ("second",): "fc2", ("head", "linear"): "fc"}


TWIN = Twin(_make, _names, flattened="fc1")
