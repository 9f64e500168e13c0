# SPDX-License-Identifier: Apache-2.0
"""Our networks in PyTorch, as people write them: torchvision's names, with the CIFAR stem."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from ncjax.config import ModelConfig
from ncjax.models import resnet, vgg


def make_network(config: ModelConfig, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The twin of `ncjax.models.make_model(config, image_shape, classes)`; its weights are PyTorch's defaults.

    It maps float images `[b ch h w]` to logits `[b c]`. `logits_and_features` gives the features too.
    """
    height, width, channels = image_shape
    match config.name:
        case "resnet18" | "resnet34":
            return ResNet(BasicBlock, resnet.STAGES[config.name], config.width, channels, classes)
        case "resnet50":
            return ResNet(Bottleneck, resnet.STAGES[config.name], config.width, channels, classes)
        case "vgg11" | "vgg16":
            return VGG(vgg.STAGES[config.name], config.width, channels, classes)
        case "densenet":
            return DenseNet(config.dense_blocks, config.width, channels, classes)
        case "cnn":
            return CNN(config.width, channels, classes)
        case "mlp":
            return MLP(config.width, height * width * channels, classes)


def logits_and_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[b c]` and the input of the last linear layer `[b d]`, of any network that ends in one."""
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        return network(images), seen[0]
    finally:
        hook.remove()


def _conv(channels: int, filters: int, size: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=bias)


def _downsample(channels: int, filters: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == filters:
        return None
    return nn.Sequential(_conv(channels, filters, 1, stride), nn.BatchNorm2d(filters))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = _conv(filters, filters, 3), nn.BatchNorm2d(filters)
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
        self.conv1, self.bn1 = _conv(channels, filters, 1), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = _conv(filters, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv3, self.bn3 = _conv(filters, 4 * filters, 1), nn.BatchNorm2d(4 * filters)
        self.downsample = _downsample(channels, 4 * filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """torchvision's ResNet with a 3x3 stem of stride 1 and no pooling after it."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: tuple[int, ...],
        width: int,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, width, 3), nn.BatchNorm2d(width)
        channels = width
        self.stages = len(counts)
        for stage, count in enumerate(counts):
            filters, blocks = width * 2**stage, []
            for place in range(count):
                blocks.append(block(channels, filters, 2 if stage and not place else 1))
                channels = block.expansion * filters
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    """torchvision's VGG with BatchNorm; one linear layer follows the convolutions."""

    def __init__(self, counts: tuple[int, ...], width: int, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for factor, count in zip((1, 2, 4, 8, 8), counts, strict=True):
            for _ in range(count):
                filters = factor * width
                layers += [_conv(channels, filters, 3, bias=True), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class DenseLayer(nn.Module):
    """torchvision's dense layer: the input with `growth` new channels behind it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), _conv(channels, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), _conv(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(new)))], 1)


class Transition(nn.Module):
    """Half as many channels, half the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), _conv(channels, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(torch.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """torchvision's DenseNet with a 3x3 stem of stride 1, without norm and pooling after it."""

    def __init__(self, counts: tuple[int, ...], growth: int, channels: int, classes: int) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(conv0=_conv(channels, 2 * growth, 3))
        channels = 2 * growth
        for block, count in enumerate(counts, start=1):
            if block > 1:
                parts[f"transition{block - 1}"] = Transition(channels)
                channels //= 2
            layers = {f"denselayer{i + 1}": DenseLayer(channels + i * growth, growth) for i in range(count)}
            parts[f"denseblock{block}"] = nn.Sequential(OrderedDict(layers))
            channels += count * growth
        parts[f"norm{len(counts) + 1}"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


class CNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm, the last two of stride 2."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, width, 3), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, 2 * width, 3, 2), nn.BatchNorm2d(2 * width)
        self.conv3, self.bn3 = _conv(2 * width, 4 * width, 3, 2), nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.relu(self.bn3(self.conv3(x))).mean((2, 3)))


class MLP(nn.Module):
    """Two hidden layers on flattened pixels, channel by channel."""

    def __init__(self, width: int, inputs: int, classes: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, width), nn.Linear(width, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))
