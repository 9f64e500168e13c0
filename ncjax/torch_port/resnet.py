# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twins of `ncjax.models.resnet`."""

from functools import partial

import torch
from torch import Tensor, nn

from ncjax.config import ModelConfig
from ncjax.models.resnet import STAGES, has_imagenet_stem
from ncjax.torch_port.twin import ImageShape, Layer, Twin, conv, numbered, rename

# Names of the widely copied pytorch-cifar networks -> torchvision's.
RENAMES = ((r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc."))


def _downsample(channels: int, filters: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == filters:
        return None
    return nn.Sequential(conv(channels, filters, 1, stride), nn.BatchNorm2d(filters))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = conv(filters, filters, 3), nn.BatchNorm2d(filters)
        self.downsample = _downsample(channels, filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, filters, 1), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = conv(filters, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv3, self.bn3 = conv(filters, 4 * filters, 1), nn.BatchNorm2d(4 * filters)
        self.downsample = _downsample(channels, 4 * filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """torchvision's ResNet; with the stem of CIFAR its first convolution is 3x3 of stride 1, and nothing is pooled."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: tuple[int, ...],
        width: int,
        channels: int,
        classes: int,
        imagenet_stem: bool,
    ) -> None:
        super().__init__()
        size, stride = (7, 2) if imagenet_stem else (3, 1)
        self.conv1, self.bn1 = conv(channels, width, size, stride), nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        channels = width
        self.stages = len(counts)
        for stage, count in enumerate(counts):
            filters, blocks = width * 2**stage, []
            for number in range(count):
                blocks.append(block(channels, filters, 2 if stage and not number else 1))
                channels = block.expansion * filters
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def _make(
    block: type[BasicBlock] | type[Bottleneck], config: ModelConfig, image_shape: ImageShape, classes: int
) -> ResNet:
    stem = has_imagenet_stem(config, image_shape)
    return ResNet(block, STAGES[config.name], config.width, image_shape[2], classes, stem)


def _names(config: ModelConfig) -> dict[Layer, str]:
    names: dict[Layer, str] = {("stem", "conv"): "conv1", ("stem", "norm"): "bn1", ("head", "linear"): "fc"}
    counts = STAGES[config.name]
    prefixes = [f"layer{stage}.{number}." for stage, count in enumerate(counts, start=1) for number in range(count)]
    for index, prefix in enumerate(prefixes):
        names |= numbered(("blocks", index), prefix)
        names["blocks", index, "shortcut", "conv"] = f"{prefix}downsample.0"
        names["blocks", index, "shortcut", "norm"] = f"{prefix}downsample.1"
    return names


BASIC, BOTTLENECK = (
    Twin(partial(_make, block), _names, to_torchvision=partial(rename, RENAMES)) for block in (BasicBlock, Bottleneck)
)
