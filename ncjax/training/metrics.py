# SPDX-License-Identifier: Apache-2.0
"""Writes the metrics of a run: metrics.jsonl and, on request, TensorBoard events and a run of Weights & Biases."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ncjax.buckets import BucketPath
from ncjax.config import Config, to_dict
from ncjax.distributed.processes import is_main_process
from ncjax.errors import UserError, first_line
from ncjax.storage import metrics
from ncjax.storage.failures import place_of, why_not_written
from ncjax.storage.metrics import Record
from ncjax.storage.workdir import run_id
from ncjax.training.members import Member

AGAIN = "the same command goes on from the last checkpoint"
Write = Callable[[Record], None]


def by_member(members: tuple[Member, ...], numbers: Float[np.ndarray, "s"] | Sequence[float]) -> dict[str, float]:
    """Numbers of members in their order, under their names; those of padding are left out."""
    return {member.name: float(number) for member, number in zip(members, numbers, strict=False)}


@contextmanager
def open_metrics(workdir: Path, config: Config) -> Iterator[Write]:
    """A function that appends a record to metrics.jsonl and to what else the config asks for, on the main process.

    The tag of a scalar is `METRIC/MEMBER`, such as `test_loss/mod:5/lr=0.1/wd=5e-4/seed=0` (tensorboardX puts `_` in
    place of `:` and `=`).

    Raises:
        UserError: a package is not installed, or Weights & Biases refuses the run; or, where a record is written, it
            cannot be, or another folder has taken the place of the work directory.
    """
    if not is_main_process():
        yield lambda record: None
        return
    path, place = workdir / "metrics.jsonl", place_of(workdir)
    with ExitStack() as opened:
        loggers = [opened.enter_context(_tensorboard(workdir))] if config.tensorboard else []
        loggers += [opened.enter_context(_wandb(workdir, config))] if config.wandb else []

        def write(record: Record) -> None:
            if place_of(workdir) != place:  # a folder that is made anew would split the run in two
                raise UserError(f"{workdir} is gone: was it renamed or deleted? Move it back, and {AGAIN}")
            try:
                metrics.append(path, record)
            except OSError as error:
                if isinstance(path, BucketPath):
                    raise
                raise UserError(f"cannot write {path}: {why_not_written(workdir, error)}; {AGAIN}") from error
            for log in loggers:
                log(record)

        yield write


def _scalars(record: Record) -> dict[str, float]:
    return {
        f"{metric}/{member}": math.nan if number is None else number
        for metric, numbers in record.values.items()
        for member, number in numbers.items()
    }


@contextmanager
def _tensorboard(workdir: Path) -> Iterator[Write]:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("tensorboard needs tensorboardX; install it with: pip install 'ncjax[tensorboard]'") from error
    events = SummaryWriter(str(workdir / "tensorboard"))

    def write(record: Record) -> None:
        for tag, number in _scalars(record).items():
            events.add_scalar(tag, number, record.step)

    try:
        yield write
    finally:
        events.close()


@contextmanager
def _wandb(workdir: Path, config: Config) -> Iterator[Write]:
    """A run of Weights & Biases; one that goes on is the same there, by the mark of the work directory."""
    try:
        import wandb
    except ImportError as error:
        raise UserError("wandb needs the package of its name; install it with: pip install 'ncjax[wandb]'") from error
    entity, _, project = config.wandb.rpartition("/")
    try:
        run = wandb.init(
            project=project,
            entity=entity or None,
            name=config.name,
            id=run_id(workdir) or None,
            resume="allow",
            dir=None if isinstance(workdir, BucketPath) else str(workdir),
            config=dict(to_dict(config)),
        )
    except wandb.errors.Error as error:
        raise UserError(
            f"wandb cannot log to {config.wandb} ({first_line(error)}); WANDB_MODE=offline keeps the log in {workdir}"
        ) from error

    def write(record: Record) -> None:
        run.log({"epoch": record.epoch, **_scalars(record)}, step=record.step)

    with run:
        yield write
