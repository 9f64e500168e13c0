# SPDX-License-Identifier: Apache-2.0
"""What ncjax has to know of the PyTorch twin of a network, and what the twins share."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ncjax.config import ModelConfig

Layer = tuple[Any, ...]  # path of a layer in our network, such as ("blocks", 0, "first", "conv")
StateDict = dict[str, np.ndarray]
ImageShape = tuple[int, int, int]  # height, width, channels
Rule = tuple[str, str | Callable[[re.Match[str]], str]]  # a pattern in a name, and what replaces it


def unchanged(config: ModelConfig, state: StateDict) -> StateDict:
    """Returns the state as it is."""
    del config
    return state


class Twin(NamedTuple):
    """The same function in PyTorch, with torchvision's names; its name in `TWINS` is that of our network.

    Attributes:
        make: `(config, image_shape, classes)` -> a module that maps float images `[b ch h w]` to logits `[b c]`.
        layer_names: of a config: path of each layer in our network -> its name in the module.
        flattened: name of the linear layer whose inputs are the pixels of an image; empty: there is none.
        to_torchvision: `(config, state)` -> the state under torchvision's names, from other common ones; names that are
            not recognized stay.
    """

    make: Callable[[ModelConfig, ImageShape, int], nn.Module]
    layer_names: Callable[[ModelConfig], dict[Layer, str]]
    flattened: str = ""
    to_torchvision: Callable[[ModelConfig, StateDict], StateDict] = unchanged


def rename(rules: Sequence[Rule], config: ModelConfig, state: StateDict) -> StateDict:
    """Returns the state with each rule applied to each name, in order."""
    del config
    renamed = {}
    for name, array in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = array
    return renamed


def conv(channels: int, filters: int, size: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Returns a convolution that pads as ours do."""
    return nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=bias)


def numbered(layer: Layer, prefix: str) -> dict[Layer, str]:
    """Names of the convolutions `first`, `second` and `third` of a block, and of their norms."""
    return {
        (*layer, part, kind): f"{prefix}{name}{number}"
        for number, part in enumerate(("first", "second", "third"), start=1)
        for kind, name in (("conv", "conv"), ("norm", "bn"))
    }
