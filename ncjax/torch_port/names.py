# SPDX-License-Identifier: Apache-2.0
"""Which of our layers is which of PyTorch's."""

from typing import Any

from ncjax.config import ModelConfig
from ncjax.models import resnet, vgg

Layer = tuple[Any, ...]


def layer_names(config: ModelConfig) -> dict[Layer, str]:
    """Path of each layer in our network -> its name in the twin: `(blocks, 0, first, conv)` -> `layer1.0.conv1`."""
    match config.name:
        case "resnet18" | "resnet34" | "resnet50":
            return _resnet(resnet.STAGES[config.name])
        case "vgg11" | "vgg16":
            return _vgg(vgg.STAGES[config.name])
        case "densenet":
            return _densenet(config.dense_blocks)
        case "cnn":
            return {("head", "linear"): "fc"} | _numbered((), "")
        case "mlp":
            return {("first",): "fc1", ("second",): "fc2", ("head", "linear"): "fc"}


def _numbered(layer: Layer, prefix: str) -> dict[Layer, str]:
    """The convolutions `first`, `second` and `third` of a block, with their norms."""
    return {
        (*layer, part, kind): f"{prefix}{name}{number}"
        for number, part in enumerate(("first", "second", "third"), start=1)
        for kind, name in (("conv", "conv"), ("norm", "bn"))
    }


def _resnet(counts: tuple[int, ...]) -> dict[Layer, str]:
    names: dict[Layer, str] = {("stem", "conv"): "conv1", ("stem", "norm"): "bn1", ("head", "linear"): "fc"}
    places = [f"layer{stage}.{place}." for stage, count in enumerate(counts, start=1) for place in range(count)]
    for index, prefix in enumerate(places):
        names |= _numbered(("blocks", index), prefix)
        names["blocks", index, "shortcut", "conv"] = f"{prefix}downsample.0"
        names["blocks", index, "shortcut", "norm"] = f"{prefix}downsample.1"
    return names


def _vgg(counts: tuple[int, ...]) -> dict[Layer, str]:
    names: dict[Layer, str] = {("head", "linear"): "classifier"}
    at = 0
    for stage, count in enumerate(counts):
        for place in range(count):
            names["stages", stage, place, "conv"] = f"features.{at}"
            names["stages", stage, place, "norm"] = f"features.{at + 1}"
            at += 3
        at += 1
    return names


def _densenet(counts: tuple[int, ...]) -> dict[Layer, str]:
    names: dict[Layer, str] = {("head", "linear"): "classifier", ("stem",): "features.conv0"}
    names["norm",] = f"features.norm{len(counts) + 1}"
    for block, count in enumerate(counts):
        for place in range(count):
            for part in ("norm1", "conv1", "norm2", "conv2"):
                names["blocks", block, place, part] = f"features.denseblock{block + 1}.denselayer{place + 1}.{part}"
        for part in ("norm", "conv"):
            names["transitions", block, part] = f"features.transition{block + 1}.{part}"
    return names
