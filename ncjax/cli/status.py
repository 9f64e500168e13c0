# SPDX-License-Identifier: Apache-2.0
"""`ncjax status`: what a run is at, from another terminal."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import tyro

from ncjax.cli.parsing import parse
from ncjax.cli.progress import duration
from ncjax.cli.tables import print_text
from ncjax.report.markdown import markdown_table
from ncjax.storage.status import Holder, PartStatus, RunStatus, read_status

MOST_MEMBERS = 12  # with a line of their own; more are one line for each label map
MOST_FAILURES = 8
COLUMNS = {"train_loss": "train loss", "train_accuracy": "train %", "test_accuracy": "test %"}


def status_verb(arguments: Sequence[str]) -> None:
    """Prints what a work directory says of its run."""

    def options(workdir: tyro.conf.Positional[Path]) -> Path:
        """Say what a run is at: epochs, members, accuracies, last checkpoint, time left, and whether its process lives.

        Args:
            workdir: Work directory of a run [path].
        """
        return workdir

    print_text(status_text(read_status(parse("status", options, arguments))))


def status_text(status: RunStatus) -> str:
    """Returns the status as Markdown: lines, then a table of the members at the end of their last epoch."""
    parts = [f"{status.name}: {_activity(status)}"]
    for number, part in enumerate(status.parts):
        title = f"Cohort {number}: " if number else ""
        parts += ["\n".join([title + _epochs(part), *_details(part)]), _table(part)]
    return "\n\n".join(part for part in (*parts, _results(status)) if part)


def _activity(status: RunStatus) -> str:
    """Whether a process works on the run."""
    if status.trainer is not None and status.trainer.alive is not False:
        return f"in training by {_alive(status.trainer)}"
    if status.evaluator is not None and status.evaluator.alive is not False:
        return f"in evaluation by {_alive(status.evaluator)}"
    if all(part.ended for part in status.parts):
        return "trained"
    gone = f" ({status.trainer.name} is gone)" if status.trainer else ""
    return f"not in training{gone}; the same command goes on from the last checkpoint: {status.command or 'not known'}"


def _alive(holder: Holder) -> str:
    return f"{holder.name}, which lives" if holder.alive else f"{holder.name}, which cannot be asked from here"


def _epochs(part: PartStatus) -> str:
    members = f"{len(part.members)} members" if len(part.members) != 1 else "1 member"
    line = f"epoch {part.epochs} of {part.of_epochs}, {members}"
    if part.ended or part.left_secs is None:
        return line
    return f"{line}, about {duration(part.left_secs)} of training left"


def _details(part: PartStatus) -> Iterator[str]:
    if part.checkpoint is None:
        yield "no checkpoint yet"
    else:
        yield f"last checkpoint: step {part.checkpoint}, {duration(part.checkpoint_age or 0.0)} ago"
    if part.failures:
        yield f"not finite: {len(part.failures)} of {len(part.members)} members"
        yield from (f"- {line}" for line in part.failures[:MOST_FAILURES])
        yield from [f"- and {len(part.failures) - MOST_FAILURES} more"] * (len(part.failures) > MOST_FAILURES)


def _table(part: PartStatus) -> str:
    if part.last is None:
        return ""
    groups = {name: [name] for name in part.members}
    if len(groups) > MOST_MEMBERS:
        groups = {}
        for name in part.members:
            groups.setdefault(name.split("/")[0], []).append(name)
    several = any(len(names) > 1 for names in groups.values())
    head = ["label map, mean (min to max)" if several else "member", *(["members"] * several), *COLUMNS.values()]
    lines = [head]
    for title, names in groups.items():
        counts = [str(len(names))] * several
        lines.append([title, *counts, *(_cell(part, metric, names) for metric in COLUMNS)])
    return markdown_table(lines)


def _cell(part: PartStatus, metric: str, names: Sequence[str]) -> str:
    """The mean of the members that have a number, in per cent where it is an accuracy, and their range."""
    numbers = part.last.values.get(metric, {}) if part.last else {}
    values = [value for name in names if (value := numbers.get(name)) is not None]
    if not values:
        return "–"
    form = (lambda x: f"{100 * x:.1f}") if metric.endswith("accuracy") else (lambda x: f"{x:.3f}")
    mean = form(statistics.fmean(values))
    return mean if len(names) == 1 else f"{mean} ({form(min(values))} to {form(max(values))})"


def _results(status: RunStatus) -> str:
    if status.report is not None:
        return f"report: {status.report.absolute()}"
    return "evaluated, without a report" if status.evaluated else "not evaluated yet"
