# SPDX-License-Identifier: Apache-2.0
"""Networks of a run out to PyTorch, and PyTorch checkpoints in as a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.config import Config, MeshConfig
from ncjax.data import Dataset, load_dataset
from ncjax.errors import UserError
from ncjax.features.extraction import extract, save_features
from ncjax.torch_port.files import read_state_dict, write_state_dict
from ncjax.torch_port.foreign import to_torchvision_names
from ncjax.torch_port.weights import from_state_dict, to_state_dict
from ncjax.training import checkpoints as checkpoint
from ncjax.training.loop import Run, prepare
from ncjax.training.step import TrainState, init_state
from ncjax.storage.workdir import open_workdir, read_config, write_json


def export_member(workdir: Path, member: int, path: Path) -> None:
    """Write the weights of one member at the newest checkpoint as a PyTorch `state_dict`.

    Args:
        workdir: of a run.
        member: its number, from 0.
        path: of the new file; `.safetensors` chooses that format.

    Raises:
        UserError: there is no such member or no checkpoint, or the file cannot be written.
    """
    run, _ = _on_one_device(read_config(workdir))
    if not 0 <= member < len(run.members):
        raise UserError(f"no member {member} in {workdir}; it has {len(run.members)}, numbered from 0")
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} holds no checkpoint; run: ncjax train CONFIG --workdir {workdir}")
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        state = checkpoint.restore_latest(checkpoints, _blank_state(run))
    if state is None:
        raise UserError(f"{workdir} holds no checkpoint; run: ncjax train CONFIG --workdir {workdir}")
    params, batch_stats = jax.tree.map(lambda x: x[member], (state.params, state.batch_stats))
    write_state_dict(path, to_state_dict(run.config.model, run.spec.image_shape, params, batch_stats))


def import_checkpoints(
    config: Config,
    files: Sequence[Path],
    workdir: Path,
    command: str,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> None:
    """Make a work directory, as after training, from PyTorch checkpoints: `ncjax evaluate` goes on from there.

    Args:
        config: the network and the data that the checkpoints belong to.
        files: one checkpoint for each member of the config, in the order of its members.
        workdir: to be made.
        command: kept in config.json.
        mean: channel means that images were normalised with, in units of the full scale; none: those of the data.
        std: the same for standard deviations.

    Raises:
        UserError: a file cannot be read or does not fit the network, or the number of files or channels does not fit.
    """
    run, dataset = _on_one_device(config)
    if len(files) != len(run.members):
        raise UserError(f"{len(files)} checkpoints for the {len(run.members)} members of this config; give one each")
    if (workdir / "checkpoints").exists():
        raise UserError(f"{workdir} holds a run already; choose another --workdir")
    run = dataclasses.replace(run, images=run.images._replace(**_statistics(run, mean=mean, std=std)))
    state = _state_of(run, files)
    open_workdir(workdir, config, command)
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        checkpoint.save(checkpoints, state)
        checkpoints.wait_until_finished()
    save_features(workdir, config.optim.epochs, extract(run, state, dataset))
    imported = [f"The weights of member {index} were imported from {path.name}." for index, path in enumerate(files)]
    write_json(
        workdir / "results" / "training.json",
        {"compile_secs": None, "train_secs": None, "failures": [], "imported": imported},
    )


def _on_one_device(config: Config) -> tuple[Run, Dataset]:
    dataset = load_dataset(config.data)
    return prepare(dataclasses.replace(config, mesh=MeshConfig()), dataset), dataset


def _state_of(run: Run, files: Sequence[Path]) -> TrainState:
    """The state at the end of training, with the weights of these files."""
    weights = []
    for path in files:
        state = to_torchvision_names(run.config.model, read_state_dict(path))
        try:
            weights.append(from_state_dict(run.config.model, run.spec.image_shape, run.spec.classes, state))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    params, batch_stats = jax.tree.map(lambda *members: jnp.stack(members), *weights)
    step = jnp.asarray(run.spec.total_steps, jnp.int32)
    return _blank_state(run)._replace(params=params, batch_stats=batch_stats, step=step)


def _blank_state(run: Run) -> TrainState:
    """A state of the right shapes, without the work of initialising it."""
    shapes = jax.eval_shape(lambda: init_state(run.spec, run.ensemble))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return blank._replace(nan_step=blank.nan_step - 1)


def _statistics(run: Run, **given: Sequence[float]) -> dict[str, Any]:
    channels = run.spec.image_shape[2]
    for name, values in given.items():
        if values and len(values) != channels:
            raise UserError(f"--{name} has {len(values)} numbers, but the images have {channels} channels")
        if not np.isfinite(values).all() or (name == "std" and min(values, default=1) <= 0):
            raise UserError(f"--{name} is {tuple(values)}, but must be {'above 0 and ' if name == 'std' else ''}finite")
    return {name: jnp.asarray(values, jnp.float32) for name, values in given.items() if values}
