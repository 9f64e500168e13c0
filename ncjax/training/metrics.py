# SPDX-License-Identifier: Apache-2.0
"""Writes the metrics of a run: metrics.jsonl and, on request, TensorBoard events."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ncjax.distributed.processes import is_main_process
from ncjax.errors import UserError
from ncjax.storage import metrics
from ncjax.storage.metrics import Record

Write = Callable[[Record], None]


@contextmanager
def open_metrics(workdir: Path, *, tensorboard: bool) -> Iterator[Write]:
    """A function that appends a record to metrics.jsonl, and to TensorBoard events; the main process alone writes.

    The tag of a scalar is `METRIC/MEMBER`, such as `test_loss/mod:5/lr=0.1/wd=5e-4/seed=0` (tensorboardX puts `_` in
    place of `:` and `=`).

    Raises:
        UserError: TensorBoard is asked for and tensorboardX is not installed.
    """
    if not is_main_process():
        yield lambda record: None
        return
    events = _event_writer(workdir) if tensorboard else None

    def write(record: Record) -> None:
        metrics.append(workdir / "metrics.jsonl", record)
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
