# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of PyTorch code on disk. Nothing in a file is ever executed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ncjax.errors import UserError, first_line
from ncjax.features.torch_files import load_torch
from ncjax.storage.atomic import atomic_path
from ncjax.torch_port.twin import StateDict

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
DEEPEST = 4  # wrappers around wrappers
PREFIXES = ("module", "_orig_mod", "model", "net", "network")


def write_state_dict(path: Path, state: StateDict) -> None:
    """Write a `state_dict` that `load_state_dict` accepts: safetensors by that suffix, else `torch.save`'s format.

    The file is written whole or not at all. BatchNorm's `num_batches_tracked`, which PyTorch does not use with a fixed
    momentum, is written as 0.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    means = [name for name in tensors if name.endswith(".running_mean")]
    tensors |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
    try:
        with atomic_path(path) as draft:
            save_file(tensors, draft) if path.suffix == ".safetensors" else torch.save(tensors, draft)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {first_line(error)}") from error


def read_state_dict(path: Path) -> StateDict:
    """The weights in a checkpoint, as float32, without what training code puts around them.

    Understands safetensors and `torch.save`'s formats; `{"state_dict": ...}` and the like; the prefixes of
    DataParallel (`module.`), `torch.compile` (`_orig_mod.`) and of networks inside other modules. Loads tensors only.

    Raises:
        UserError: the file is missing, truncated, holds code or no weights; or a weight is an integer, NaN or infinite.
    """
    state = _strip_prefixes(_unwrap(load_torch(path), path))
    weights = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    return {name: _to_float32(path, name, tensor) for name, tensor in weights.items()}


def _to_float32(path: Path, name: str, tensor: torch.Tensor) -> np.ndarray:
    if not tensor.is_floating_point():
        raise UserError(f"{path}: {name} is {tensor.dtype}, but weights must be floating-point numbers")
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise UserError(f"{path}: {name} is {'meta' if tensor.is_meta else tensor.layout}, but must be a dense tensor")
    array = tensor.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {name} holds NaN or infinite numbers (as float32); was the training diverging?")
    return array


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    for _ in range(DEEPEST):
        inside = [content[name] for name in WRAPPERS if name in content] if isinstance(content, Mapping) else []
        if not inside or not isinstance(inside[0], Mapping):
            break
        content = inside[0]
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
