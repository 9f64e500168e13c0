# SPDX-License-Identifier: Apache-2.0
"""Networks of a run out to PyTorch, and PyTorch checkpoints in as a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.config import Config
from ncjax.data import load_dataset
from ncjax.data.record import keep_record
from ncjax.distributed.environment import environment
from ncjax.errors import UserError
from ncjax.events import stage
from ncjax.features.extraction import keep_features
from ncjax.features.feature_set import FEATURES
from ncjax.features.run import Run, prepare_part, prepare_run
from ncjax.features.store import describe_members, write_members
from ncjax.paths import user_path
from ncjax.results import TrainingSummary
from ncjax.storage.atomic import write_json
from ncjax.storage.workdir import CHECKPOINTS, locked, open_workdir
from ncjax.torch_port.files import check_suffix, read_state_dict, write_state_dict
from ncjax.torch_port.foreign import to_torchvision_names
from ncjax.torch_port.networks import find_twin
from ncjax.torch_port.weights import from_state_dict, to_state_dict
from ncjax.training import checkpoints as checkpoint
from ncjax.training.loop import PreparedRun
from ncjax.training.members import with_statistics
from ncjax.training.state import TrainState, blank_state
from ncjax.typed_json import unstructure


def export_member(workdir: str | Path, member: int, path: str | Path) -> None:
    """Write the weights of one member at the newest checkpoint as a PyTorch `state_dict`; the run is only read.

    Args:
        workdir: of a run.
        member: its number, from 0.
        path: of the new file; its suffix is the format: `.pt`, `.pth` or `.safetensors`.

    Raises:
        UserError: the suffix is another one, there is no such member or no checkpoint, or the file cannot be written.
    """
    check_suffix(path)
    run = Run.open(workdir)
    config = run.config
    find_twin(config.model.name)
    if not 0 <= member < len(run.members):
        raise UserError(f"no member {member} in {run.workdir}; it has {len(run.members)}, numbered from 0")
    name = run.members[member].name
    part = next(part for part in run.parts if name in part.described.members)
    dataset = load_dataset(config.data)
    with stage("read checkpoint", name):
        prepared = prepare_part(part, dataset)
        state = checkpoint.read_state(part.workdir, blank_state(prepared.spec, prepared.ensemble))
    index = list(part.described.members).index(name)
    params, batch_stats = jax.tree.map(lambda x: x[index], (state.members.params, state.members.batch_stats))
    write_state_dict(path, to_state_dict(config.model, prepared.spec.image_shape, params, batch_stats))


def import_checkpoints(
    config: Config,
    files: Sequence[str | Path],
    workdir: str | Path,
    command: str,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> None:
    """Make a work directory, as after training, from PyTorch checkpoints: `ncjax evaluate` goes on from there.

    Args:
        config: the network and the data that the checkpoints belong to.
        files: one checkpoint for each member of the config, in the order of its members.
        workdir: to be made; results/training.json there says what the images were normalised with.
        command: kept in config.json.
        mean: channel means that images were normalised with, in units of the full scale; none: those of the data.
        std: the same for standard deviations.

    Raises:
        UserError: a file cannot be read or does not fit the network, the number of files or channels does not fit, or
            the work directory holds a run or is in use.
    """
    paths, workdir = tuple(map(user_path, files)), user_path(workdir)
    dataset = load_dataset(config.data)
    prepared = prepare_run(config, dataset)
    if len(paths) != len(prepared.members):
        raise UserError(
            f"{len(paths)} checkpoints for the {len(prepared.members)} members of this config; give one each"
        )
    _check_free(workdir)
    prepared = dataclasses.replace(prepared, images=with_statistics(prepared.images, mean, std))
    state = _state_of(prepared, paths)
    with locked(workdir):
        _check_free(workdir)
        open_workdir(workdir, config, command, environment())
        _write_run(workdir, prepared, state)
        write_json(workdir / "results" / "training.json", unstructure(_summary(prepared, paths)))


def _check_free(workdir: Path) -> None:
    if (workdir / CHECKPOINTS).exists():
        raise UserError(f"{workdir} holds a run already; choose another --workdir")


def _write_run(workdir: Path, prepared: PreparedRun, state: TrainState) -> None:
    """All that training writes but for the summary, which is last: it says that the run is whole."""
    config, dataset = prepared.config, prepared.dataset
    described = describe_members(config, dataset, from_memory=False)
    keep_record(workdir, dataset)
    write_members(workdir, described)
    with checkpoint.open_checkpoints(workdir) as checkpoints:
        checkpoint.save(checkpoints, state)
        checkpoint.finish(checkpoints)
    layers = tuple(dict.fromkeys((*config.evaluate.layers, FEATURES)))
    keep_features(workdir, prepared, state, dataset, layers, config.optim.epochs)


def _summary(prepared: PreparedRun, files: Sequence[Path]) -> TrainingSummary:
    pairs = zip(prepared.members, files, strict=True)
    mean, std = (tuple(np.asarray(one).tolist()) for one in (prepared.images.mean, prepared.images.std))
    return TrainingSummary(
        compile_secs=None,
        train_secs=None,
        imported=tuple(f"The weights of {member.name} were imported from {path.name}." for member, path in pairs),
        mean=mean,
        std=std,
        data=prepared.dataset.notes,
    )


def _state_of(prepared: PreparedRun, files: Sequence[Path]) -> TrainState:
    """The state at the end of training, with the weights of these files."""
    spec, weights = prepared.spec, []
    with stage("read checkpoints", total=len(files)) as advance:
        for path in files:
            state = to_torchvision_names(prepared.config.model, read_state_dict(path))
            try:
                weights.append(from_state_dict(prepared.config.model, spec.image_shape, spec.classes, state))
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
            advance(1, path.name)
    params, batch_stats = jax.tree.map(lambda *members: jnp.stack(members), *weights)
    blank = blank_state(spec, prepared.ensemble)
    members = blank.members._replace(params=params, batch_stats=batch_stats)
    return TrainState(members, jnp.asarray(spec.total_steps, jnp.int32))
