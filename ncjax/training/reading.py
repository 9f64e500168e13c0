# SPDX-License-Identifier: Apache-2.0
"""What the host reads of a training: losses of chunks of steps, and measures of epochs, when they are ready."""

import dataclasses
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from ncjax.distributed.processes import to_host
from ncjax.errors import UserError
from ncjax.storage.metrics import HEADER, Record, Values
from ncjax.training.members import Member
from ncjax.training.metrics import Write, by_member
from ncjax.training.state import Spec, StepMetrics


class Measures(NamedTuple):
    """What is measured at the end of an epoch, on the devices."""

    factor: Float[Array, ""]  # of the learning rates
    totals: StepMetrics
    tested: StepMetrics
    observed: Mapping[str, Float[Array, "s"]]


class Chunk(NamedTuple):
    """What the host reads of a chunk of steps."""

    first: int
    end: int
    losses: Float[Array, "t s"]
    ended: Measures | None  # where it ends an epoch
    more: Values  # further columns


class Unread:
    """Chunks that the host has not read yet; they are read in their order."""

    def __init__(self, spec: Spec, members: tuple[Member, ...], write: Write, bar: tqdm, started: float) -> None:
        self._spec, self._members, self._write, self._bar, self._started = spec, members, write, bar, started
        self._chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)

    def read(self) -> None:
        """Waits for all of them; shows their losses, and writes the lines of the epochs that they end."""
        while self._chunks:
            chunk, spec = self._chunks.pop(0), self._spec
            taken, epoch = chunk.end - chunk.first, chunk.first // spec.steps_per_epoch + 1
            losses = to_host(chunk.losses)[:taken, : len(self._members)]
            loss = np.nanmean(losses)
            self._bar.set_postfix_str(f"epoch {epoch}/{spec.config.optim.epochs}, loss {loss:.3f}", False)
            self._bar.update(taken * spec.config.optim.batch * len(self._members))
            if chunk.ended is not None:
                record = _record(spec, self._members, to_host(chunk.ended), chunk.end, self._started)
                self._write(_with_columns(record, chunk.more))


def _record(spec: Spec, members: tuple[Member, ...], found: Measures, at: int, started: float) -> Record:
    """What is written at the end of an epoch."""
    per_epoch, factor = spec.steps_per_epoch, float(found.factor)
    secs = round(time.perf_counter() - started, 3)
    values: Mapping[str, Float[Array, s] | Float[np.ndarray, s] | list[float]] = {
        "lr": [member.lr * factor for member in members],
        "train_loss": found.totals.loss / per_epoch,
        "train_accuracy": found.totals.accuracy / per_epoch,
        "test_loss": found.tested.loss,
        "test_accuracy": found.tested.accuracy,
        **found.observed,
    }
    named = {metric: by_member(members, np.asarray(numbers)) for metric, numbers in values.items()}
    return Record(step=at, epoch=at // per_epoch, wall_secs=secs, values=named)


def _with_columns(record: Record, more: Values) -> Record:
    taken = [name for name in more if name in record.values or name in HEADER]
    if taken:
        raise UserError(f"a callback gives {taken[0]!r}, which is a column of metrics.jsonl already; rename it")
    return dataclasses.replace(record, values={**record.values, **more})
