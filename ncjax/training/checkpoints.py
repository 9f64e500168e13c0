# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: asynchronous and atomic by Orbax, each with a seal that tells whether it is still whole."""

import logging
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ncjax.errors import UserError
from ncjax.distributed.processes import on_any_process, is_main_process, on_main_process, lost_peer, broadcast_message
from ncjax.storage.checksums import broken_seal, write_seal
from ncjax.training.step import TrainState

KEPT = 2
CONTENT = "default"  # the part of a checkpoint that is sealed, before it is given its final name


def open_checkpoints(workdir: Path, keep_steps: int = 0) -> ocp.CheckpointManager:
    """The checkpoints of a work directory; the newest `KEPT` are kept, and those of multiples of `keep_steps`."""
    _quiet_orbax()
    folder = (workdir / "checkpoints").absolute()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEPT,
        keep_period=keep_steps or None,
        create=True,
        cleanup_tmp_directories=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=lambda: _seal(folder)),
    )
    return ocp.CheckpointManager(folder, options=options)


def save(checkpoints: ocp.CheckpointManager, state: TrainState) -> None:
    """Start to write a checkpoint; the state may be donated to the next step at once, so a copy is written.

    Raises:
        UserError: this one or the one before cannot be written; those that are whole are untouched.
    """
    content = ocp.args.StandardSave(jax.tree.map(jnp.copy, state)._asdict())
    shape = {"members": state.nan_step.shape[0]}
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
        raise UserError(
            f"a checkpoint cannot be written to {checkpoints.directory} ({_reason(error)}); is the disk full? "
            "Those before are whole: the same command goes on from there"
        ) from error


def restore_latest(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest state that is whole, laid over the devices as `like` is; None where there is no checkpoint yet.

    Newer ones that are damaged are moved to WORKDIR/damaged, and named on stderr. Where a checkpoint was written for
    another number of places on the mesh, copies of member 0 are added, or those that are there dropped.

    Raises:
        UserError: there are checkpoints, and none of them can be read as a state of this run.
    """
    folder = Path(checkpoints.directory)
    damaged: dict[int, str] = {}
    for step in sorted(checkpoints.all_steps(), reverse=True):
        reason = broadcast_message(broken_seal(folder / str(step), CONTENT) if is_main_process() else "")
        state = None
        if not reason:
            state, reason = _read(checkpoints, step, like)
        if not any(on_any_process((bool(reason),))):
            if damaged:
                on_main_process(partial(_set_aside, folder, damaged, step))
                checkpoints.reload()
            return state
        damaged[step] = reason or "another process cannot read it"
    if damaged:
        newest = max(damaged)
        raise UserError(
            f"checkpoint {folder / str(newest)} cannot be read ({damaged[newest]}), nor is there an older one to go on "
            f"from; delete {folder} to start again"
        )
    return None


@cache
def _quiet_orbax() -> None:
    """An error that Orbax raises is said once: without its log, and without those of writes that end after it."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = report


def _seal(folder: Path) -> None:
    """Called by Orbax, in its own thread, when all files of a checkpoint are written and it has no final name yet."""
    if is_main_process():
        for draft in folder.glob("*.orbax-checkpoint-tmp*"):
            write_seal(draft, CONTENT)


def _read(checkpoints: ocp.CheckpointManager, step: int, like: TrainState) -> tuple[TrainState | None, str]:
    """The state at a step, or why it cannot be read."""
    try:
        given: Any = checkpoints.metadata(step).custom_metadata or {}
        places = int(given.get("members", like.nan_step.shape[0]))
        target = jax.tree.map(lambda leaf: _with_places(leaf, places), like._asdict())
        content = TrainState(**checkpoints.restore(step, args=ocp.args.StandardRestore(target)))
        return _fit(content, like), ""
    except (ValueError, KeyError, TypeError, OSError) as error:
        return None, _reason(error)


def _with_places(leaf: jax.Array, places: int) -> jax.ShapeDtypeStruct:
    """A leaf of the state for another number of places, spread over the members' axis where they divide evenly."""
    if not leaf.ndim or leaf.shape[0] == places:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding) and places % sharding.mesh.shape["member"]:
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec[1:]))
    return jax.ShapeDtypeStruct((places, *leaf.shape[1:]), leaf.dtype, sharding=sharding)


def _fit(state: TrainState, like: TrainState) -> TrainState:
    there, wanted = state.nan_step.shape[0], like.nan_step.shape[0]
    if there == wanted:
        return state
    rows = np.where(np.arange(wanted) < there, np.arange(wanted), 0)

    def fit(state: PyTree) -> PyTree:
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


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
