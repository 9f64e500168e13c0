# SPDX-License-Identifier: Apache-2.0
"""The tables of collapse of a run: at both label levels, and of what is left inside super-classes.

They show the metrics with a short title, in the order of `Evaluation.metrics`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ncjax.report.groups import KINDS, Group, Quantity, number, significant
from ncjax.results import MetricInfo, Scope

LEVELS = ("coarse", "fine")


class Column(NamedTuple):
    """A metric: its short title, and what it is in full."""

    metric: str
    title: str
    hint: str


class CollapseLine(NamedTuple):
    """One network at one level."""

    label: str
    kind: str
    level: str
    cells: tuple[tuple[str, str], ...]  # train and test


class CollapseTables(NamedTuple):
    """Heads and lines of both tables; no line where a run was measured without."""

    level_columns: tuple[Column, ...]
    level_lines: tuple[CollapseLine, ...]
    inside_columns: tuple[Column, ...]
    inside_lines: tuple[CollapseLine, ...]
    resampled: bool  # whether a spread is that over resamples of the examples


def collapse_tables(
    groups: Sequence[Group], labels: Sequence[str], metrics: Mapping[str, MetricInfo]
) -> CollapseTables:
    """Returns the cells of both tables, a line a group; groups of one network have the spread of their resamples."""

    def lines(level: str, columns: Sequence[Column]) -> list[CollapseLine]:
        return [
            CollapseLine(label, KINDS.get(group.kind, group.kind), level, _cells(group, level, columns))
            for group, label in zip(groups, labels, strict=True)
            if any(group.values(Quantity(column.metric, "train", level)) for column in columns)
        ]

    of_levels, inside = _columns(metrics, "level"), _columns(metrics, "within")
    return CollapseTables(
        level_columns=of_levels,
        level_lines=tuple(line for level in LEVELS for line in lines(level, of_levels)),
        inside_columns=inside,
        inside_lines=tuple(lines("within", inside)),
        resampled=any(len(group.rows) == 1 and group.rows[0].bootstrap for group in groups),
    )


def _columns(metrics: Mapping[str, MetricInfo], scope: Scope) -> tuple[Column, ...]:
    chosen = {name: info for name, info in metrics.items() if info.scope == scope and info.short}
    return tuple(Column(name, info.short, hint(info)) for name, info in chosen.items())


def hint(info: MetricInfo) -> str:
    """Returns a metric in full: `NC4: nearest mean and classifier differ; 0 to 1, lower is better`."""
    match (info.low, info.high):
        case (None, None):
            bounds = ""
        case (low, None):
            bounds = f"{low:g} or more"
        case (None, high):
            bounds = f"{high:g} or less"
        case (low, high):
            bounds = f"{low:g} to {high:g}"
    facts = ", ".join(fact for fact in (bounds, f"{info.better} is better" if info.better else "") if fact)
    return f"{info.label}; {facts}" if facts else info.label


def _cells(group: Group, level: str, columns: Sequence[Column]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (_cell(group, Quantity(column.metric, "train", level)), _cell(group, Quantity(column.metric, "test", level)))
        for column in columns
    )


def _cell(group: Group, quantity: Quantity) -> str:
    spread, values = group.spread(quantity), group.values(quantity)
    if spread.std is None or spread.over != "resamples":
        return number(values)
    return f"{number(values)} ± {significant(spread.std, 2)}"
