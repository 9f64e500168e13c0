# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: asynchronous and atomic, by Orbax."""

from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from ncjax.errors import UserError
from ncjax.train.step import TrainState

KEPT = 2


def open_checkpoints(workdir: Path, keep_steps: int = 0) -> ocp.CheckpointManager:
    """The checkpoints of a work directory; the newest `KEPT` are kept, and those of multiples of `keep_steps`."""
    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, keep_period=keep_steps or None, create=True)
    return ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, state: TrainState) -> None:
    """Start to write a checkpoint; the state may be donated to the next step at once, so a copy is written."""
    checkpoints.save(int(state.step), args=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)._asdict()))


def restore_latest(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest state, laid over the devices as `like` is; None where there is no checkpoint yet.

    Raises:
        UserError: the checkpoint cannot be read as a state of this run.
    """
    step = checkpoints.latest_step()
    if step is None:
        return None
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like._asdict())
    try:
        return TrainState(**checkpoints.restore(step, args=ocp.args.StandardRestore(target)))
    except (ValueError, KeyError, OSError) as error:
        folder = Path(checkpoints.directory) / str(step)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"checkpoint {folder} cannot be read ({reason}); delete that folder to use the one before"
        ) from error


def finish(checkpoints: ocp.CheckpointManager) -> None:
    """Wait until all that was saved is on disk."""
    checkpoints.wait_until_finished()
