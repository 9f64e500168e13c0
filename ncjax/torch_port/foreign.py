# SPDX-License-Identifier: Apache-2.0
"""Other common names of the same networks' weights, told apart by the names alone."""

import re
from itertools import accumulate

import numpy as np

from ncjax.config import ModelConfig
from ncjax.torch_port.weights import StateDict

# Names of the widely copied pytorch-cifar networks -> torchvision's. Rules of one network never meet another's names.
RENAMES = {
    "resnet": ((r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc.")),
    "vgg": ((r"^(linear|classifier\.0)\.", "classifier."),),
    "densenet": (
        (r"^conv1\.", "features.conv0."),
        (r"^dense(\d+)\.(\d+)\.", lambda m: f"features.denseblock{m[1]}.denselayer{int(m[2]) + 1}."),
        (r"(denselayer\d+)\.bn", r"\1.norm"),
        (r"^trans(\d+)\.bn\.", r"features.transition\1.norm."),
        (r"^trans(\d+)\.conv\.", r"features.transition\1.conv."),
        (r"^linear\.", "classifier."),
    ),
}

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def to_torchvision_names(config: ModelConfig, state: StateDict) -> StateDict:
    """The same weights under the names of our twins; names that are not recognised stay.

    The pytorch-cifar DenseNet puts new channels before the old ones where torchvision puts them behind: there the
    channels are reordered, too.
    """
    family = config.name.rstrip("0123456789")
    reversed_channels = family == "densenet" and any(name.startswith("dense1.") for name in state)
    renamed = {_rename(family, name): array for name, array in state.items()}
    if not reversed_channels:
        return renamed
    last = f"features.norm{len(config.dense_blocks) + 1}"
    renamed = {re.sub(r"^bn\.", f"{last}.", name): array for name, array in renamed.items()}
    return _append_new_channels(config, renamed, last)


def _rename(family: str, name: str) -> str:
    for pattern, replacement in RENAMES.get(family, ()):
        name = re.sub(pattern, replacement, name)
    return name


def _append_new_channels(config: ModelConfig, state: StateDict, last: str) -> StateDict:
    """Reorders the input channels of everything that reads a concatenation."""
    growth, channels = config.width, 2 * config.width
    state = dict(state)
    for block, count in enumerate(config.dense_blocks, start=1):
        for place in range(count):
            layer = f"features.denseblock{block}.denselayer{place + 1}"
            _reorder(state, f"{layer}.norm1", f"{layer}.conv1", [channels] + [growth] * place)
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
