# SPDX-License-Identifier: Apache-2.0
"""Reads what PyTorch code saves: safetensors and the formats of `torch.save`. Nothing in a file is ever executed."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ncjax.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor


def load_torch(path: Path) -> object:
    """The content of a file, on the CPU: tensors, plain values, and containers of these.

    Raises:
        UserError: the file is missing, truncated, or holds anything else; or PyTorch is not installed.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    try:
        import torch
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"reading {path} needs PyTorch; install it with: pip install 'ncjax[torch]'") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, or is no checkpoint; nothing of it was executed. Save the weights alone, "
            "with torch.save(model.state_dict(), PATH), and import that"
        ) from error
    except Exception as error:  # a damaged file makes the reader stumble anywhere
        raise UserError(f"{path} cannot be read as a checkpoint ({first_line(error)}); is it truncated?") from error


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """All tensors of a file by name, as they are; a lone tensor has the name of the empty string.

    Raises:
        UserError: the file is missing, truncated, or holds anything but tensors; or PyTorch is not installed.
    """
    content = load_torch(path)
    import torch

    named = {"": content} if isinstance(content, torch.Tensor) else content
    if not isinstance(named, Mapping) or not all(isinstance(value, torch.Tensor) for value in named.values()):
        raise UserError(
            f"{path} holds a {type(content).__name__}, but must hold a tensor or a dict of names to tensors"
        )
    return {str(name): tensor for name, tensor in named.items()}
