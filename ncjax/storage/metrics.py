# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl: one line an epoch, with the numbers of every member by its name."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from ncjax.errors import UserError
from ncjax.storage.atomic import append_text, atomic_path

Values = Mapping[str, Mapping[str, float | None]]  # metric -> member -> number
METRICS = "metrics.jsonl"
HEADER = ("step", "epoch", "wall_secs")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of metrics.jsonl.

    Attributes:
        step: steps taken so far.
        epoch: epochs finished so far.
        wall_secs: seconds of training that led here.
        values: of each metric, the number of each member by name; None where it is not finite.
    """

    step: int
    epoch: int
    wall_secs: float
    values: Values = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON: `{"step", "epoch", "wall_secs", METRIC: {MEMBER: number}, ...}`; non-finite is null."""
        header = {name: getattr(self, name) for name in HEADER}
        values = {
            metric: {member: _finite(number) for member, number in numbers.items()}
            for metric, numbers in self.values.items()
        }
        return json.dumps({**header, **values}, allow_nan=False)

    @classmethod
    def from_json(cls, line: str | bytes, members: Sequence[str] = ()) -> "Record":
        """Read a line; those of ncjax 0.1 hold lists in the order of the members.

        Args:
            line: what `to_json` wrote, or the older form.
            members: names for lists; none: the names are "0", "1", ...

        Raises:
            ValueError: it is not such a line.
        """
        content = json.loads(line)
        if not isinstance(content, dict):
            raise ValueError("not an object")
        header = {name: content.pop(name) for name in HEADER if name in content}
        if list(header) != list(HEADER) or not all(type(number) in (int, float) for number in header.values()):
            raise ValueError(f"no numbers {', '.join(HEADER)}")
        values = {metric: _named(metric, numbers, members) for metric, numbers in content.items()}
        return cls(step=header["step"], epoch=header["epoch"], wall_secs=float(header["wall_secs"]), values=values)


def read_records(path: Path, members: Sequence[str] = ()) -> tuple[Record, ...]:
    """All lines of a file in order, none where there is no file; a half-written last line is left out.

    The file is only read, so it may be one that a trainer is writing.

    Args:
        path: of metrics.jsonl.
        members: names of the members, for lines of ncjax 0.1; none: "0", "1", ...

    Raises:
        UserError: a line before the last cannot be read.
    """
    return tuple(record for _, record in _lines(path, members))


def join_records(parts: Sequence[Sequence[Record]], *, at_once: bool = False) -> tuple[Record, ...]:
    """The lines of several files, whose members differ, by step: as one file of all members would hold them.

    Args:
        parts: the lines of each file.
        at_once: the members were trained together: the seconds are those of the slowest. Else the files were written
            one after the other, and seconds are added.
    """
    if len(parts) == 1:
        return tuple(parts[0])
    by_step: dict[int, list[Record]] = {}
    for record in (record for part in parts for record in part):
        by_step.setdefault(record.step, []).append(record)
    secs = max if at_once else sum
    return tuple(_join(by_step[step], secs) for step in sorted(by_step))


def _join(records: Sequence[Record], secs: Callable[[Iterable[float]], float]) -> Record:
    metrics = dict.fromkeys(metric for record in records for metric in record.values)
    values = {metric: {k: x for one in records for k, x in one.values.get(metric, {}).items()} for metric in metrics}
    return dataclasses.replace(records[0], wall_secs=secs(one.wall_secs for one in records), values=values)


def keep_until(path: Path, step: int) -> float:
    """Drop the lines after `step`, and a half-written last line: a resumed run writes them again.

    Returns:
        `wall_secs` of the last line kept, 0 where there is none: the seconds that led to `step`.

    Raises:
        UserError: a line before the last cannot be read; the file stays as it is.
    """
    if not path.exists():
        return 0.0
    kept = list(takewhile(lambda pair: pair[1].step <= step, _lines(path, ())))
    with atomic_path(path) as draft:
        draft.write_bytes(b"".join(line + b"\n" for line, _ in kept))
    return kept[-1][1].wall_secs if kept else 0.0


def append(path: Path, record: Record) -> None:
    """Add one line."""
    append_text(path, record.to_json() + "\n")


def _lines(path: Path, members: Sequence[str]) -> Iterator[tuple[bytes, Record]]:
    """The lines that are whole, as they are and read."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = Record.from_json(line, members)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return
            raise UserError(f"{path}, line {number} is damaged; mend it, or move the file away to go on") from error
        yield line, record


def _named(metric: str, numbers: object, members: Sequence[str]) -> dict[str, float | None]:
    if isinstance(numbers, list):
        names = members if len(members) == len(numbers) else [str(index) for index in range(len(numbers))]
        numbers = dict(zip(names, numbers, strict=True))
    if not isinstance(numbers, dict) or any(type(x) not in (int, float, type(None)) for x in numbers.values()):
        raise ValueError(f"{metric} does not hold a number for each member")
    return {name: None if number is None else float(number) for name, number in numbers.items()}


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
