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
from ncjax.paths import user_path
from ncjax.storage.arrays import tensor_to_numpy
from ncjax.storage.atomic import atomic_path
from ncjax.torch_port.twin import StateDict

SUFFIXES = (".pt", ".pth", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optim", "scheduler", "scaler")  # beside the weights
DEEPEST = 4  # wrappers around wrappers
MODULES = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
COUNTERS = ("num_batches_tracked", "n_averaged")
PREFIXES = ("model", "net", "network", "encoder", "backbone")


def write_state_dict(path: str | Path, state: StateDict) -> None:
    """Write a `state_dict` that `load_state_dict` accepts: `.safetensors`, or `.pt` and `.pth` as `torch.save` has it.

    The file is written whole or not at all. BatchNorm's `num_batches_tracked`, which PyTorch does not use with a fixed
    momentum, is written as 0.

    Raises:
        UserError: the file has another suffix, or cannot be written.
    """
    path = check_suffix(path)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    means = [name for name in tensors if name.endswith(".running_mean")]
    tensors |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
    try:
        with atomic_path(path) as draft:
            save_file(tensors, draft) if path.suffix == ".safetensors" else torch.save(tensors, draft)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {first_line(error)}") from error


def check_suffix(path: str | Path) -> Path:
    """The path of a file that `write_state_dict` can write.

    Raises:
        UserError: its suffix is another one.
    """
    path = user_path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}: the suffix is the format")
    return path


def read_state_dict(path: str | Path) -> StateDict:
    """The weights in a checkpoint, as float32, without what training code puts around them.

    Understands safetensors and `torch.save`'s formats; `{"state_dict": ...}` and the like; the names of DataParallel,
    `AveragedModel` (`module.`), `torch.compile` (`_orig_mod.`), FSDP and of networks inside other modules. Loads
    tensors only.

    Raises:
        UserError: the file is missing, truncated, holds code, no weights, or those of several networks; or a weight is
            an integer, NaN or infinite, or holds no plain numbers.
    """
    path = user_path(path)
    state = _strip_prefixes(_without_wrappers(_unwrap(load_torch(path), path), path))
    return {name: _to_float32(path, name, tensor) for name, tensor in state.items()}


def _to_float32(path: Path, name: str, tensor: torch.Tensor) -> np.ndarray:
    array = tensor_to_numpy(f"{path}: {name}", tensor)
    if not tensor.is_floating_point():
        raise UserError(f"{path}: {name} is {tensor.dtype}, but weights must be floating-point numbers")
    with np.errstate(over="ignore"):
        array = np.array(array, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {name} holds NaN or infinite numbers (as float32); was the training diverging?")
    return array


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    """The one state_dict in a checkpoint."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, but must hold a state_dict")
    found = _state_dicts(content)
    if not found:
        raise UserError(f"{path} holds no state_dict: a mapping of names to tensors; it holds {_listed(content)}")
    if len(found) > 1:
        named = ", ".join(map(repr, found))
        raise UserError(f"{path} holds several state_dicts ({named}); save the one that is meant in a file of its own")
    (state,) = found.values()
    return {str(name).replace("\n", " "): tensor for name, tensor in state.items()}


def _listed(content: Mapping[object, object]) -> str:
    """What a checkpoint holds in the first of the usual places, or at all."""
    usual = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
    if usual is not None:
        return f"{_listed(content[usual])} under {usual}"  # type: ignore[arg-type]
    return ", ".join(f"{name} ({type(value).__name__})" for name, value in list(content.items())[:5]) or "nothing"


def _state_dicts(content: Mapping[object, object], depth: int = 0) -> dict[str, Mapping[object, torch.Tensor]]:
    """The state_dicts in a checkpoint by where they stand; those under the usual names, where there are some."""
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return {"": content}  # type: ignore[dict-item]
    if depth == DEEPEST:
        return {}
    inside = {
        str(name): _state_dicts(value, depth + 1) for name, value in content.items() if isinstance(value, Mapping)
    }
    usual = {name: inside[name] for name in WRAPPERS if inside.get(name)}
    chosen = usual or {name: states for name, states in inside.items() if name not in OPTIMIZERS}
    return {f"{name}.{under}".strip("."): state for name, states in chosen.items() for under, state in states.items()}


def _without_wrappers(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The weights under the names that they have without modules that wrap one other, and without counters."""
    bare: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        parts = [part for part in name.split(".") if part not in MODULES]
        if parts and parts[-1] in COUNTERS:
            continue
        short = ".".join(parts)
        if short in bare:
            raise UserError(f"{path} holds {short} twice, once as {name}; save the state_dict of one network")
        bare[short] = tensor
    return bare


def _strip_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = {name.split(".", 1)[0] for name in state}
    while len(first) == 1 and first <= set(PREFIXES) and all("." in name for name in state):
        state = {name.split(".", 1)[1]: tensor for name, tensor in state.items()}
        first = {name.split(".", 1)[0] for name in state}
    return state
