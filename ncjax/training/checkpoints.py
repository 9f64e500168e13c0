# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: asynchronous and atomic by Orbax, each with checksums that tell whether it is still whole."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ncjax.buckets import BucketPath
from ncjax.distributed.processes import broadcast_message, is_main_process, lost_peer, on_any_process, on_main_process
from ncjax.errors import UserError, first_line
from ncjax.paths import user_path
from ncjax.storage.checksums import Identity, damage, write_checksums
from ncjax.storage.failures import why_not_written
from ncjax.storage.literal_paths import literal_path
from ncjax.storage.workdir import CHECKPOINTS, CONFIG, is_finished, run_id
from ncjax.training.state import MemberState, TrainState

KEPT = 2
CONTENT = "default"  # the part of a checkpoint that has checksums, before it is given its final name
ATTEMPTS = 20  # to read a state while a trainer replaces checkpoints by newer ones
ON_DISK = {"optimizer": "optimiser", "totals": "seen"}  # what ncjax 0.1 called them: the names in files


@contextmanager
def open_checkpoints(workdir: Path, keep_steps: int = 0) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of a work directory, for its trainer alone: what a killed one left half-written is removed.

    Args:
        workdir: the folder `checkpoints` is made there.
        keep_steps: checkpoints of multiples of it are kept, besides the newest `KEPT` [steps; 0: none].

    Raises:
        UserError: what was saved last cannot be written; an error inside the block comes first.
    """
    _quiet_orbax()
    folder, run = (workdir / CHECKPOINTS).absolute(), run_id(workdir) if is_main_process() else ""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEPT,
        keep_period=keep_steps or None,
        create=True,
        cleanup_tmp_directories=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=lambda: _write_checksums(folder, run)),
    )
    checkpoints = ocp.CheckpointManager(literal_path(folder), options=options)
    try:
        yield checkpoints
    except BaseException:
        with suppress(Exception):
            checkpoints.close()
        raise
    _written(checkpoints.close, checkpoints)


def save(checkpoints: ocp.CheckpointManager, state: TrainState) -> None:
    """Start to write a checkpoint of a copy of the state: the state itself may be donated to the next step at once.

    Raises:
        UserError: this one or the one before cannot be written; those that are whole are untouched.
    """
    content = ocp.args.StandardSave(_to_disk(jax.tree.map(jnp.copy, state)))
    shape = {"members": state.members.nan_step.shape[0]}
    _written(lambda: checkpoints.save(int(state.step), args=content, custom_metadata=shape), checkpoints)


def finish(checkpoints: ocp.CheckpointManager) -> None:
    """Wait until all that was saved is on disk.

    Raises:
        UserError: it cannot be written.
    """
    _written(checkpoints.wait_until_finished, checkpoints)


def _written(write: Callable[[], object], checkpoints: ocp.CheckpointManager) -> None:
    try:
        write()
    except (ValueError, OSError) as error:
        if lost_peer(error):
            raise
        reason = why_not_written(user_path(checkpoints.directory).parent / CONFIG, error)
        raise UserError(
            f"a checkpoint cannot be written to {checkpoints.directory} ({reason}). Those before are whole: the same "
            "command goes on from there"
        ) from error


def restore_latest(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest state that is whole, sharded over the devices as `like` is; None where there is no checkpoint yet.

    Newer ones that are damaged, or of another run or step, are moved to WORKDIR/damaged, and named on stderr. Where a
    checkpoint was written for another padded count of members, copies of member 0 are added, or those that are there
    dropped.

    Raises:
        UserError: there are checkpoints, and none of them can be read as a state of this run.
    """
    folder, steps = user_path(checkpoints.directory), sorted(checkpoints.all_steps(), reverse=True)
    found = _newest_whole(checkpoints, steps, like)
    if found.state is None:
        if found.damaged:
            raise UserError(f"{_none_whole(folder, found.damaged)}; start again in another work directory")
        return None
    if found.damaged:
        on_main_process(partial(_set_aside, folder, found.damaged, found.step))
        checkpoints.reload()
    return found.state


def read_state(workdir: Path, like: TrainState, step: int | None = None) -> TrainState:
    """The state of a run at a checkpoint, sharded over the devices as `like` is; also while a trainer is saving.

    The work directory is only read: nothing is created, deleted or moved. Checkpoints that are damaged, or of another
    run or step, are passed over.

    Args:
        workdir: of the run.
        like: a state of the same run, such as `state.blank_state` gives.
        step: of the checkpoint; None: the newest that is whole.

    Raises:
        UserError: there is no checkpoint (of that step), or none that can be read as a state of this run.
    """
    folder = (workdir / CHECKPOINTS).absolute()
    for _ in range(ATTEMPTS):
        if not folder.is_dir():
            break
        with _open_read_only(folder) as checkpoints:
            steps = sorted(checkpoints.all_steps(), reverse=True)
            if step is not None and step not in steps:
                there = ", ".join(map(str, reversed(steps))) or "none"
                raise UserError(f"{workdir} holds no checkpoint of step {step} (there are: {there})")
            found = _newest_whole(checkpoints, steps if step is None else [step], like)
        if found.state is not None:
            return found.state
        if all((folder / str(damaged)).is_dir() for damaged in found.damaged):
            if found.damaged:
                raise UserError(_none_whole(folder, found.damaged))
            break
    raise UserError(f"{workdir} holds no checkpoint; run: ncjax train CONFIG --workdir {workdir}")


class _Found(NamedTuple):
    """The newest checkpoint that is whole."""

    state: TrainState | None  # None: there is none
    step: int
    damaged: dict[int, str]  # newer ones, with what is wrong with each


def _newest_whole(checkpoints: ocp.CheckpointManager, steps: list[int], like: TrainState) -> _Found:
    """The first of the steps whose checkpoint is whole on every process."""
    folder = user_path(checkpoints.directory)
    damaged: dict[int, str] = {}
    for step in steps:
        reason = broadcast_message(_damage(folder, step, run_id(folder.parent)) if is_main_process() else "")
        state = None
        if not reason:
            state, reason = _read(checkpoints, step, like)
        if not any(on_any_process((bool(reason),))):
            return _Found(state, step, damaged)
        damaged[step] = reason or "another process cannot read it"
    return _Found(None, 0, damaged)


def why_not_whole(workdir: Path, step: int) -> str:
    """What is wrong with the checkpoint of a step, which is only read; empty: it is whole."""
    folder = workdir / CHECKPOINTS
    return _damage(folder, step, run_id(workdir)) if (folder / str(step)).is_dir() else "it is missing"


def _damage(folder: Path, step: int, run: str) -> str:
    if not (folder / str(step) / CONTENT).is_dir():
        return "it has no content: was it half deleted?"
    return damage(folder / str(step), CONTENT, _identity(run, step))


def _identity(run: str, step: int) -> Identity:
    """What the checksum file says that a checkpoint is of."""
    return {"run": run, "step": step}


def _none_whole(folder: Path, damaged: dict[int, str]) -> str:
    newest = max(damaged)
    return (
        f"checkpoint {folder / str(newest)} cannot be read ({damaged[newest]}), nor is there an older one to go on from"
    )


def _open_read_only(folder: Path) -> ocp.CheckpointManager:
    _quiet_orbax()
    options = ocp.CheckpointManagerOptions(
        read_only=True, create=False, save_interval_steps=0, max_to_keep=None, cleanup_tmp_directories=False
    )
    return ocp.CheckpointManager(literal_path(folder), options=options)


@cache
def _quiet_orbax() -> None:
    """Silence what Orbax logs of an error that it raises too, and errors of writes that end after it."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = report


def _write_checksums(folder: Path, run: str) -> None:
    """Called by Orbax, in its own thread, when all files of a checkpoint are written and it has no final name yet."""
    if is_main_process():
        for draft in _unfinished(folder):
            write_checksums(draft, CONTENT, _identity(run, int(draft.name.split(".")[0])))


def _unfinished(folder: Path) -> list[Path]:
    """The checkpoints that Orbax is writing: it renames them at the end, or, in a bucket, adds a file."""
    if not isinstance(folder, BucketPath):
        return list(folder.glob("*.orbax-checkpoint-tmp*"))
    return [path for path in folder.glob("[0-9]*") if not is_finished(path)]


def _to_disk(state: TrainState) -> dict[str, PyTree]:
    """The content of a checkpoint, under the names that it has had since ncjax 0.1."""
    members = {ON_DISK.get(name, name): leaf for name, leaf in state.members._asdict().items()}
    return {**members, "step": state.step}


def _from_disk(content: dict[str, PyTree]) -> TrainState:
    """The inverse of `_to_disk`."""
    members = {name: content[ON_DISK.get(name, name)] for name in MemberState._fields}
    return TrainState(MemberState(**members), content["step"])


def _read(checkpoints: ocp.CheckpointManager, step: int, like: TrainState) -> tuple[TrainState | None, str]:
    """The state at a step, or why it cannot be read."""
    try:
        written: Any = checkpoints.metadata(step).custom_metadata or {}
        count = int(written.get("members", like.members.nan_step.shape[0]))
        target = _to_disk(jax.tree.map(lambda leaf: _with_count(leaf, count), like))
        state = _from_disk(checkpoints.restore(step, args=ocp.args.StandardRestore(target)))
        if int(state.step) != step:
            return None, f"it is of step {int(state.step)}, not of step {step}"
        return _fit(state, like), ""
    except Exception as error:  # what Orbax raises of files that are not its own is of many kinds
        if lost_peer(error):
            raise
        return None, first_line(error)


def _with_count(leaf: jax.Array, count: int) -> jax.ShapeDtypeStruct:
    """A leaf of the state for another padded count of members, sharded over them where they divide evenly."""
    if not leaf.ndim or leaf.shape[0] == count:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding) and count % sharding.mesh.shape["member"]:
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec[1:]))
    return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype, sharding=sharding)


def _fit(state: TrainState, like: TrainState) -> TrainState:
    """The state with as many members as `like` has."""
    count, wanted = state.members.nan_step.shape[0], like.members.nan_step.shape[0]
    if count == wanted:
        return state
    rows = np.where(np.arange(wanted) < count, np.arange(wanted), 0)

    def fit(state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: leaf[rows] if leaf.ndim else leaf, state)

    return jax.jit(fit, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like))(state)


def _set_aside(folder: Path, damaged: dict[int, str], step: int) -> None:
    for bad, reason in damaged.items():
        target = folder.parent / "damaged" / str(bad)
        while target.exists():
            target = target.with_name(f"{target.name}_again")
        target.parent.mkdir(exist_ok=True)
        (folder / str(bad)).rename(target)
        print(
            f"ncjax: warning: checkpoint {bad} is damaged ({reason}) and was moved to {target}; "
            f"going on from step {step}",
            file=sys.stderr,
        )
