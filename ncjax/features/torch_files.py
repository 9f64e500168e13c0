# SPDX-License-Identifier: Apache-2.0
"""Reads what PyTorch code saves: safetensors and the formats of `torch.save`. Nothing in a file is ever executed."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ncjax.errors import UserError, first_line
from ncjax.storage.arrays import is_tensor


def load_torch(path: Path) -> object:
    """The content of a file, on the CPU: tensors, plain values, and containers of these.

    Raises:
        UserError: the file is missing, truncated, or holds anything else; or PyTorch is not installed.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    _check_stored(path)
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


def _check_stored(path: Path) -> None:
    """Refuses archives that are compressed, which `torch.save` never does: they could hold more than the memory."""
    with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        packed = [one for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise UserError(
                f"{path}: {packed[0].filename} is compressed, as torch.save never does it; load it in PyTorch and save "
                "it again"
            )


def read_tensors(path: Path) -> dict[str, Any]:
    """The arrays of a file by name: tensors as they are, lists of numbers or texts as NumPy arrays; the rest is left.

    A lone tensor has the name of the empty string.

    Raises:
        UserError: the file is missing, truncated, holds code or no tensor; or PyTorch is not installed.
    """
    content = load_torch(path)
    import torch

    if isinstance(content, torch.Tensor):
        return {"": content}
    named = content if isinstance(content, Mapping) else {}
    if not any(isinstance(value, torch.Tensor) for value in named.values()):
        held = ", ".join(f"{name} ({type(value).__name__})" for name, value in list(named.items())[:5])
        found = f"{type(content).__name__} of {held}" if held else type(content).__name__
        raise UserError(f"{path} holds a {found}, but must hold a tensor or a dict of names to tensors")
    arrays = {str(name): _as_array(value) for name, value in named.items()}
    return {name: array for name, array in arrays.items() if array is not None}


def _as_array(value: Any) -> Any:
    """A tensor, or a list of numbers or texts as an array; None: anything else."""
    if is_tensor(value):
        return value
    plain = isinstance(value, list | tuple) and value and all(isinstance(one, int | float | str) for one in value)
    return np.asarray(value) if plain else None
