# SPDX-License-Identifier: Apache-2.0
"""Writes the metrics of a run: metrics.jsonl and, on request, TensorBoard events."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ncjax.distributed.processes import is_main_process
from ncjax.errors import UserError
from ncjax.storage import metrics
from ncjax.storage.failures import place_of, why_not_written
from ncjax.storage.metrics import Record
from ncjax.training.members import Member

AGAIN = "the same command goes on from the last checkpoint"
Write = Callable[[Record], None]


def by_member(members: tuple[Member, ...], numbers: Float[np.ndarray, "s"] | Sequence[float]) -> dict[str, float]:
    """Numbers of members in their order, under their names; those of padding are left out."""
    return {member.name: float(number) for member, number in zip(members, numbers, strict=False)}


@contextmanager
def open_metrics(workdir: Path, *, tensorboard: bool) -> Iterator[Write]:
    """A function that appends a record to metrics.jsonl, and to TensorBoard events; the main process alone writes.

    The tag of a scalar is `METRIC/MEMBER`, such as `test_loss/mod:5/lr=0.1/wd=5e-4/seed=0` (tensorboardX puts `_` in
    place of `:` and `=`).

    Raises:
        UserError: TensorBoard is asked for and tensorboardX is not installed; or, where a record is written, it cannot
            be, or another folder has taken the place of the work directory.
    """
    if not is_main_process():
        yield lambda record: None
        return
    events = _event_writer(workdir) if tensorboard else None
    path, place = workdir / "metrics.jsonl", place_of(workdir)

    def write(record: Record) -> None:
        if place_of(workdir) != place:  # a folder that is made anew would split the run in two
            raise UserError(f"{workdir} is gone: was it renamed or deleted? Move it back, and {AGAIN}")
        try:
            metrics.append(path, record)
        except OSError as error:
            raise UserError(f"cannot write {path}: {why_not_written(workdir, error)}; {AGAIN}") from error
        if events is not None:
            for metric, numbers in record.values.items():
                for member, number in numbers.items():
                    events.add_scalar(f"{metric}/{member}", math.nan if number is None else number, record.step)

    yield write
    if events is not None:
        events.close()


def _event_writer(workdir: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("tensorboard needs tensorboardX; install it with: pip install 'ncjax[tensorboard]'") from error
    return SummaryWriter(str(workdir / "tensorboard"))
