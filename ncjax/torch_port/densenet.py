# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twin of `ncjax.models.densenet`."""

from collections import OrderedDict
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ncjax.config import ModelConfig
from ncjax.torch_port.twin import ImageShape, Layer, Rule, StateDict, Twin, conv, rename

# Names of the widely copied pytorch-cifar network -> torchvision's.
RENAMES: tuple[Rule, ...] = (
    (r"^conv1\.", "features.conv0."),
    (r"^dense(\d+)\.(\d+)\.", lambda m: f"features.denseblock{m[1]}.denselayer{int(m[2]) + 1}."),
    (r"(denselayer\d+)\.bn", r"\1.norm"),
    (r"^trans(\d+)\.bn\.", r"features.transition\1.norm."),
    (r"^trans(\d+)\.conv\.", r"features.transition\1.conv."),
    (r"^linear\.", "classifier."),
)
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


class DenseLayer(nn.Module):
    """torchvision's dense layer: the input with `growth` new channels behind it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), conv(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(new)))], 1)


class Transition(nn.Module):
    """Half as many channels, half the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), conv(channels, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(torch.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """torchvision's DenseNet with a 3x3 stem of stride 1, without norm and pooling after it."""

    def __init__(self, counts: tuple[int, ...], growth: int, channels: int, classes: int) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(conv0=conv(channels, 2 * growth, 3))
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


def _make(config: ModelConfig, image_shape: ImageShape, classes: int) -> DenseNet:
    return DenseNet(config.dense_blocks, config.width, image_shape[2], classes)


def _names(config: ModelConfig) -> dict[Layer, str]:
    names: dict[Layer, str] = {("head", "linear"): "classifier", ("stem",): "features.conv0"}
    names["norm",] = f"features.norm{len(config.dense_blocks) + 1}"
    for block, count in enumerate(config.dense_blocks):
        for number in range(count):
            for part in ("norm1", "conv1", "norm2", "conv2"):
                names["blocks", block, number, part] = f"features.denseblock{block + 1}.denselayer{number + 1}.{part}"
        for part in ("norm", "conv"):
            names["transitions", block, part] = f"features.transition{block + 1}.{part}"
    return names


def _to_torchvision(config: ModelConfig, state: StateDict) -> StateDict:
    """pytorch-cifar puts new channels before the old ones, torchvision behind them: they are reordered, too."""
    renamed = rename(RENAMES, config, state)
    if not any(name.startswith("dense1.") for name in state):
        return renamed
    last = f"features.norm{len(config.dense_blocks) + 1}"
    return _append_new_channels(config, rename([(r"^bn\.", f"{last}.")], config, renamed), last)


def _append_new_channels(config: ModelConfig, state: StateDict, last: str) -> StateDict:
    """Reorders the input channels of everything that reads a concatenation."""
    growth, channels = config.width, 2 * config.width
    state = dict(state)
    for block, count in enumerate(config.dense_blocks, start=1):
        for number in range(count):
            layer = f"features.denseblock{block}.denselayer{number + 1}"
            _reorder(state, f"{layer}.norm1", f"{layer}.conv1", [channels] + [growth] * number)
        norm, reader = (f"features.transition{block}.{part}" for part in ("norm", "conv"))
        if block == len(config.dense_blocks):
            norm, reader = last, "classifier"
        _reorder(state, norm, reader, [channels] + [growth] * count)
        channels = (channels + count * growth) // 2
    return state


def _reorder(state: StateDict, norm: str, reader: str, sizes: list[int]) -> None:
    """Turns the order of segments around: `sizes` are those of torchvision's order, first to last."""
    ends = list(accumulate(sizes[::-1]))
    segments = [np.arange(end - size, end) for end, size in zip(ends, sizes[::-1], strict=True)]
    order = np.concatenate(segments[::-1])
    for name, axis in ((f"{reader}.weight", 1), *((f"{norm}.{part}", 0) for part in NORM_PARTS)):
        if name in state and state[name].shape[axis : axis + 1] == (order.size,):
            state[name] = np.take(state[name], order, axis=axis)


TWIN = Twin(_make, _names, to_torchvision=_to_torchvision)
