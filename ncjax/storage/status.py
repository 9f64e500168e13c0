# SPDX-License-Identifier: Apache-2.0
"""What a work directory says of its run, also while it is trained; nothing is locked, moved or written."""

import itertools
import os
import platform
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.buckets import BucketPath
from ncjax.errors import UserError
from ncjax.paths import user_path
from ncjax.storage.leases import LEASE_SECS
from ncjax.storage.metrics import METRICS, Record, read_records
from ncjax.storage.workdir import (
    CHECKPOINTS,
    CONFIG,
    HOLDER,
    LOCK,
    RESULTS,
    TRAINING,
    is_finished,
    part_folders,
    read_json,
    read_run_file,
)

HOLDS = re.compile(r"process (\d+) on (.+)")
RECENT = 20  # epochs whose seconds the time left follows
MEMBERS = "members.json"


class Holder(NamedTuple):
    """The process that writes to a folder.

    Attributes:
        name: `process 12 on HOST`.
        alive: None: it is on another machine, and cannot be asked. In a bucket: whether it has renewed its lock.
    """

    name: str
    alive: bool | None


class PartStatus(NamedTuple):
    """Members that are trained together: those of the first start of a run, or of a cohort.

    Attributes:
        members: names, in order; none: not known yet.
        epochs: that have ended.
        of_epochs: that are asked for.
        last: what was measured at the end of the last epoch; None: none has ended.
        ended: whether training has come to its end.
        checkpoint: step of the newest checkpoint; None: there is none.
        checkpoint_age: seconds since it was written.
        left_secs: seconds of training that are left at the pace of the last epochs; None: not known.
        failures: a line for each member whose loss is not a number, with the epoch that shows it first.
    """

    members: tuple[str, ...]
    epochs: int
    of_epochs: int
    last: Record | None
    ended: bool
    checkpoint: int | None
    checkpoint_age: float | None
    left_secs: float | None
    failures: tuple[str, ...]


class RunStatus(NamedTuple):
    """A work directory at one moment.

    Attributes:
        name: of the run.
        command: that began it.
        trainer: None: no process trains it.
        evaluator: None: no process evaluates it.
        parts: in order; the first is that of the first start.
        evaluated: whether it holds results of an evaluation.
        report: path of its report; None: there is none.
    """

    name: str
    command: str
    trainer: Holder | None
    evaluator: Holder | None
    parts: tuple[PartStatus, ...]
    evaluated: bool
    report: Path | None


def read_status(workdir: str | Path) -> RunStatus:
    """Returns what the files of a run say now.

    Raises:
        UserError: the folder is not the work directory of a run of images.
    """
    folder = user_path(workdir)
    content = read_run_file(folder)
    epochs = _epochs_of(content.config, folder)
    report = folder / "report.html"
    return RunStatus(
        name=str(content.config.get("name", "")),
        command=content.command,
        trainer=_holder(folder),
        evaluator=_holder(folder / RESULTS),
        parts=tuple(_part(part, epochs) for part in part_folders(folder)),
        evaluated=(folder / RESULTS / "evaluation.json").is_file(),
        report=report if report.is_file() else None,
    )


def _epochs_of(config: Mapping[str, Any], folder: Path) -> int:
    optim = config.get("optim")
    epochs = optim.get("epochs") if isinstance(optim, Mapping) else None
    if not isinstance(epochs, int):
        raise UserError(f"{folder / CONFIG} names no optim.epochs: is this the work directory of a training?")
    return epochs


def _holder(folder: Path) -> Holder | None:
    """Who holds the lock of a folder; a process that was killed leaves its name behind."""
    try:
        name = (folder / HOLDER).read_text(encoding="utf-8")
        if isinstance(folder, BucketPath):
            return Holder(name, time.time() - (folder / LOCK).stat().st_mtime < LEASE_SECS)
    except OSError:
        return None
    found = HOLDS.fullmatch(name)
    if found is None or found[2] != platform.node():
        return Holder(name, None)
    return Holder(name, _is_alive(int(found[1])))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _part(folder: Path, of_epochs: int) -> PartStatus:
    records, ended = read_records(folder / METRICS), (folder / TRAINING).is_file()
    last, checkpoint = (records[-1] if records else None), _newest_checkpoint(folder)
    epochs = last.epoch if last else 0
    return PartStatus(
        members=_members(folder, last),
        epochs=epochs,
        of_epochs=of_epochs,
        last=last,
        ended=ended,
        checkpoint=checkpoint[0] if checkpoint else None,
        checkpoint_age=time.time() - checkpoint[1] if checkpoint else None,
        left_secs=0.0 if ended else _left_secs(records, of_epochs, folder),
        failures=_failures(records),
    )


def _members(folder: Path, last: Record | None) -> tuple[str, ...]:
    if (folder / MEMBERS).is_file():
        content = read_json(folder / MEMBERS)
        named = content.get("members") if isinstance(content, dict) else None
        if isinstance(named, dict):
            return tuple(named)
    return tuple(last.values.get("train_loss", {})) if last else ()


def _newest_checkpoint(folder: Path) -> tuple[int, float] | None:
    """Step and time of writing of the newest checkpoint that has its final name."""
    found = [path for path in (folder / CHECKPOINTS).glob("[0-9]*") if path.name.isdigit() and is_finished(path)]
    try:
        return max(((int(path.name), path.stat().st_mtime) for path in found), default=None)
    except OSError:  # a trainer deletes older ones
        return None


def _left_secs(records: Sequence[Record], of_epochs: int, folder: Path) -> float | None:
    """At the median pace of the last epochs, less what has passed since the last one ended."""
    secs = [after.wall_secs - before.wall_secs for before, after in itertools.pairwise(records)]
    if not records:
        return None
    pace = statistics.median(secs[-RECENT:]) if secs else records[-1].wall_secs
    since = max(0.0, time.time() - (folder / METRICS).stat().st_mtime)
    return max(0.0, pace * (of_epochs - records[-1].epoch) - min(since, pace))


def _failures(records: Sequence[Record]) -> tuple[str, ...]:
    first: dict[str, int] = {}
    for record in records:
        for member, loss in record.values.get("train_loss", {}).items():
            if loss is None:
                first.setdefault(member, record.epoch)
    return tuple(f"{member}: loss not finite in epoch {epoch}" for member, epoch in first.items())
