# SPDX-License-Identifier: Apache-2.0
"""What is left to do, what it costs, and what fits the time that is left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ncjax.errors import UserError
from ncjax.reproduce.experiment import SCALES, Experiment, Piece, Scale
from ncjax.reproduce.finished import Finished, Task, is_finished, measured_minutes, read_finished
from ncjax.storage.metrics import METRICS, read_records

UNKNOWN = "not known"
NOT_DEFINED = "–"
FOLDER = Path("runs/reproduce")


class Cost(NamedTuple):
    """What a task still takes.

    Attributes:
        task: the piece.
        minutes: None: not known.
    """

    task: Task
    minutes: float | None


def list_tasks(chosen: Sequence[Experiment], scale: Scale, root: Path) -> tuple[Task, ...]:
    """The pieces of experiments at a scale, the most valuable first: by experiment, then as each lists them.

    Raises:
        UserError: one is not defined at the scale.
    """
    for one in chosen:
        if not one.at(scale):
            known = ", ".join(name for name in SCALES if one.at(name))
            raise UserError(f"{one.name} is not defined for --scale {scale}, but for {known}")
    return tuple(Task(root, one.name, scale, piece) for one in chosen for piece in one.at(scale))


def unfinished(tasks: Sequence[Task], device: str) -> tuple[Cost, ...]:
    """The tasks that are not finished, in their order, with what each still takes on a device.

    Raises:
        UserError: a finished member is damaged or of another definition.
    """
    found = {task.members: read_finished(task) for task in tasks}
    left = [task for task in tasks if not is_finished(task, found[task.members])]
    return tuple(Cost(task, _minutes(task, found[task.members], device)) for task in left)


def _minutes(task: Task, found: Mapping[Path, Finished], device: str) -> float | None:
    """As long as a piece like it took on this device, else the estimate; less what a work directory already holds."""
    whole = measured_minutes(task, found, device) or task.piece.minutes
    return None if whole is None else whole * (1 - _share_done(task))


def _share_done(task: Task) -> float:
    """The share of the epochs behind the last line of metrics.jsonl, where there is a checkpoint to go on from."""
    if not any((task.workdir / "checkpoints").glob("[0-9]*")):
        return 0.0
    records = read_records(task.workdir / METRICS)
    return records[-1].epoch / task.piece.config.optim.epochs if records else 0.0


def choose(costs: Sequence[Cost], left: float, limit: float) -> Cost | None:
    """The most valuable task that fits the minutes that are left, or no call at all; None: the others wait.

    A task that takes longer than a whole call, or nobody knows how long, is begun while half of the call is left, cut
    off at the limit, and goes on in the next call where its work directory is still there.

    Args:
        costs: in order of value.
        left: minutes of this call.
        limit: minutes of a whole call, which it has at its start.
    """
    return next((one for one in costs if _fits(one.minutes, left, limit)), None)


def _fits(minutes: float | None, left: float, limit: float) -> bool:
    if minutes is None or minutes > limit:
        return left >= limit / 2
    return minutes <= left


def total(pieces: Sequence[Piece]) -> str:
    """What pieces take together, such as `6 x 4 min` or `~20 min`; `~`: not from a measured rate."""
    if not pieces:
        return NOT_DEFINED
    known = [piece.minutes for piece in pieces if piece.minutes is not None]
    if len(known) < len(pieces):
        return UNKNOWN
    guess = "" if all(piece.measured for piece in pieces) else "~"
    alike = len(pieces) > 1 and len(set(known)) == 1
    return f"{guess}{len(pieces)} x {_duration(known[0])}" if alike else f"{guess}{_duration(sum(known))}"


def _duration(minutes: float) -> str:
    return f"{minutes:.3g} min" if minutes < 100 else f"{minutes / 60:.2g} h"


class CostLine(NamedTuple):
    """What an experiment costs at each scale but `try`, in words."""

    name: str
    costs: tuple[str, ...]
    question: str


HEAD = tuple(words for scale, words in SCALES.items() if scale != "try")


def cost_lines(chosen: Sequence[Experiment]) -> tuple[CostLine, ...]:
    """The costs of experiments, under `HEAD`."""
    scales = [scale for scale in SCALES if scale != "try"]
    return tuple(CostLine(one.name, tuple(total(one.at(scale)) for scale in scales), one.question) for one in chosen)


def _finished(one: Experiment, root: Path) -> str:
    counts = []
    for scale in SCALES:
        tasks = [Task(root, one.name, scale, piece) for piece in one.at(scale)]
        begun = [task for task in tasks if task.members.is_dir()]
        done = sum(is_finished(task, read_finished(task)) for task in begun)
        if done:
            counts.append(f"{done} of {len(tasks)} ({scale})")
    return ", ".join(counts) or NOT_DEFINED


def overview(chosen: Sequence[Experiment], root: Path) -> str:
    """Experiments for a terminal: what each costs at each scale, what is finished in a folder, and its question.

    Raises:
        UserError: as `read_finished`.
    """
    lines = [("experiment", *HEAD, "finished")]
    lines += [
        (line.name, *line.costs, _finished(one, root)) for one, line in zip(chosen, cost_lines(chosen), strict=True)
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    below = [f"    {one.question}{f' Needs {one.needs}.' if one.needs else ''}" for one in chosen]
    return "\n".join([text[0], *(line for pair in zip(text[1:], below, strict=True) for line in pair)])
