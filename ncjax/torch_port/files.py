# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of PyTorch code on disk. Nothing in a file is ever executed."""

import contextlib
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ncjax.errors import UserError
from ncjax.torch_port.weights import StateDict

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
DEEPEST = 4  # wrappers around wrappers
PREFIXES = ("module", "_orig_mod", "model", "net", "network")


def write_state_dict(path: Path, state: StateDict) -> None:
    """Write a `state_dict` that `load_state_dict` accepts: safetensors by that suffix, else `torch.save`'s format.

    The file is written whole or not at all. BatchNorm's `num_batches_tracked`, which PyTorch does not use with a fixed
    momentum, is written as 0.

    Raises:
        UserError: the place cannot be written to.
    """
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    means = [name for name in tensors if name.endswith(".running_mean")]
    tensors |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, draft) if path.suffix == ".safetensors" else torch.save(tensors, draft)
        os.replace(draft, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise UserError(f"cannot write {path}: {_first_line(error)}") from error


def read_state_dict(path: Path) -> StateDict:
    """The weights in a checkpoint, as float32, without what training code puts around them.

    Understands safetensors and `torch.save`'s formats; `{"state_dict": ...}` and the like; the prefixes of
    DataParallel (`module.`), `torch.compile` (`_orig_mod.`) and of networks inside other modules. Loads tensors only.

    Raises:
        UserError: the file is missing, truncated, holds code or no weights; or a weight is an integer, NaN or infinite.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    state = _strip_prefixes(_unwrap(_load(path), path))
    weights = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    return {name: _to_float32(path, name, tensor) for name, tensor in weights.items()}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file by name, as they are; a lone tensor has the name of the empty string.

    Raises:
        UserError: the file is missing, truncated, or holds anything but tensors.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    content = _load(path)
    named = {"": content} if isinstance(content, torch.Tensor) else content
    if not isinstance(named, Mapping) or not all(isinstance(value, torch.Tensor) for value in named.values()):
        raise UserError(
            f"{path} holds a {type(content).__name__}, but must hold a tensor or a dict of names to tensors"
        )
    return {str(name): tensor for name, tensor in named.items()}


def _to_float32(path: Path, name: str, tensor: torch.Tensor) -> np.ndarray:
    if not tensor.is_floating_point():
        raise UserError(f"{path}: {name} is {tensor.dtype}, but weights must be floating-point numbers")
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise UserError(f"{path}: {name} is {'meta' if tensor.is_meta else tensor.layout}, but must be a dense tensor")
    array = tensor.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {name} holds NaN or infinite numbers (as float32); was the training diverging?")
    return array


def _load(path: Path) -> Any:
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
        raise UserError(f"{path} cannot be read as a checkpoint ({_first_line(error)}); is it truncated?") from error


def _unwrap(content: Any, path: Path) -> dict[str, torch.Tensor]:
    for _ in range(DEEPEST):
        inside = next((name for name in WRAPPERS if isinstance(content, Mapping) and name in content), None)
        if inside is None or not isinstance(content[inside], Mapping):
            break
        content = content[inside]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, but must hold a state_dict")
    if not content or not all(isinstance(value, torch.Tensor) for value in content.values()):
        found = ", ".join(f"{name} ({type(value).__name__})" for name, value in list(content.items())[:5]) or "nothing"
        raise UserError(f"{path} holds no state_dict: a mapping of names to tensors; it holds {found}")
    return {str(name).replace("\n", " "): tensor for name, tensor in content.items()}


def _strip_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = {name.split(".", 1)[0] for name in state}
    while len(first) == 1 and first <= set(PREFIXES) and all("." in name for name in state):
        state = {name.split(".", 1)[1]: tensor for name, tensor in state.items()}
        first = {name.split(".", 1)[0] for name in state}
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
