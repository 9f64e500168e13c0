# SPDX-License-Identifier: Apache-2.0
"""The tables of a comparison with PyTorch, from results/comparison.json."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ncjax.report.figure import COLOURS, INK, WIDTH, Figure, finish, source
from ncjax.report.groups import Group, Quantity, group_rows, labels_of, value_of, views_of
from ncjax.report.main_result import CEILING, COARSE_TEST, clp
from ncjax.report.number_formats import MISSING, number, percent
from ncjax.report.table import Cell, Head, Table, TableLine
from ncjax.results import Comparison, Speed, ViewInfo

SIDES = ("ncjax", "PyTorch")
NOISE = 1.5  # largest over least of repeated measurements


class TextTable(NamedTuple):
    """A title, a head and lines, all of them text."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


class Column(NamedTuple):
    """A quantity and how it is written."""

    title: str
    quantity: Quantity
    text: Callable[[Sequence[float]], str]


def comparison_tables(comparison: Comparison, views: Mapping[str, ViewInfo]) -> tuple[TextTable, ...]:
    """Returns tables of cost, of ways of running PyTorch, and of what the networks learnt, side by side.

    Args:
        comparison: of a run whose networks were trained on both sides, on one so far, or of speed alone.
        views: how each view is shown; those without are shown by name.
    """
    tables = _cost(comparison), _ways(comparison)
    return (*tables, _quality(comparison, views)) if comparison.rows else tables


def as_table(table: TextTable, name: str) -> Table:
    """The same as a table of the page."""
    lines = tuple(TableLine(line[0], "", tuple(map(Cell, line[1:]))) for line in table.lines)
    return Table(name, table.head[0], tuple(map(Head, table.head[1:])), lines, f"{table.title}.")


def speed_figure(comparison: Comparison) -> Figure:
    """Images per second of every way that was tried, a dot a round."""
    import altair as alt

    rows = [
        {"way": name, "round": place, "images_per_sec": rate}
        for name, speed in comparison.speed.items()
        for place, rate in enumerate(speed.images_per_sec, start=1)
    ]
    ways = [name for name, speed in comparison.speed.items() if speed.images_per_sec]
    rate = alt.X("images_per_sec:Q", title="images per second, of all members", scale=alt.Scale(domainMin=0))
    base = alt.Chart(source(rows), width=1.4 * WIDTH, height=alt.Step(26)).encode(
        y=alt.Y("way:N", sort=ways, title=None)
    )
    dots = base.mark_point(size=50, color=COLOURS[0]).encode(x=rate, tooltip=["way:N", "round:O", "images_per_sec:Q"])
    middle = base.mark_tick(thickness=2, color=INK).encode(x=alt.X("median(images_per_sec):Q"))
    failed = [f"{name} failed: {speed.error}" for name, speed in comparison.speed.items() if not speed.images_per_sec]
    return Figure(
        "speed",
        "Images per second of ncjax and of every way of running PyTorch",
        f"A dot is a round of measurement, the tick is their median; the axis begins at 0. {'. '.join(failed)}",
        finish(alt.layer(dots, middle)),
        rows,
    )


def _cost(comparison: Comparison) -> TextTable:
    speeds = [comparison.speed[name] for name in ("ncjax", comparison.torch_chosen)]
    rates = [_median(speed) for speed in speeds]
    numbers = {
        "peak memory without the libraries, MiB": [speed.peak_mib for speed in speeds],
        "secs until ready (data, compilation, a first second of steps)": [speed.setup_secs for speed in speeds],
    }
    if comparison.time_to_accuracy is not None:
        secs = [comparison.time_to_accuracy.secs[side] for side in SIDES]
        numbers = {"secs of steps until every member is as good as both sides end": secs, **numbers}
    lines = [("images/s, median (min to max)", *map(_rates, speeds), _ratio(*rates))]
    lines += [(what, f"{ours:.4g}", f"{theirs:.4g}", _ratio(ours, theirs)) for what, (ours, theirs) in numbers.items()]
    return TextTable(
        f"Cost of {comparison.members} members, {comparison.epochs} of {comparison.asked_epochs} epochs",
        ("", "ncjax", f"PyTorch ({comparison.torch_chosen})", "ncjax / PyTorch"),
        tuple(lines),
    )


def _ways(comparison: Comparison) -> TextTable:
    lines = [
        (name, _rates(speed), f"{speed.setup_secs:.1f}") if speed.images_per_sec else (name, speed.error, MISSING)
        for name, speed in comparison.speed.items()
    ]
    return TextTable(
        "Images per second of every way that was tried", ("", "median (min to max)", "secs to ready"), tuple(lines)
    )


def _quality(comparison: Comparison, views: Mapping[str, ViewInfo]) -> TextTable:
    sides = [group_rows(comparison.rows.get(side, ())) for side in SIDES]
    columns = [
        Column("coarse test", COARSE_TEST, percent),
        Column("true-label probe", CEILING, percent),
        *(
            Column(f"CLP: {label}", clp(name), percent)
            for name, label in views_of([*sides[0], *sides[1]], views).items()
        ),
        Column("NC1 coarse", Quantity("nc1", "train", "coarse"), number),
        Column("NC1 fine", Quantity("nc1", "train", "fine"), number),
    ]
    lines = []
    for both, label in _pairs(*sides):
        for side, group in zip(SIDES, both, strict=True):
            if group is not None:
                cells = [column.text(group.values(column.quantity)) for column in columns]
                lines.append((label, side, str(len(group.rows)), *cells))
        ours, theirs = both
        if ours is not None and theirs is not None:
            seeds = {row.seed for row in ours.rows} & {row.seed for row in theirs.rows}
            differences = [column.text(_differences(ours, theirs, column.quantity)) for column in columns]
            lines.append((label, "difference, seed by seed", str(len(seeds)), *differences))
    head = ("trained on", "", "seeds", *(column.title for column in columns))
    return TextTable("Accuracies in per cent, mean ± standard deviation over seeds", head, tuple(lines))


def _pairs(ours: Sequence[Group], theirs: Sequence[Group]) -> Iterator[tuple[tuple[Group | None, Group | None], str]]:
    """The groups of the same setting, one of which may be missing, and their label."""
    sides = [{group.setting: group for group in groups} for groups in (ours, theirs)]
    settings = dict.fromkeys(setting for side in sides for setting in side)
    labels = labels_of([sides[0].get(setting) or sides[1][setting] for setting in settings])
    for setting, label in zip(settings, labels, strict=True):
        yield (sides[0].get(setting), sides[1].get(setting)), label


def _differences(ours: Group, theirs: Group, quantity: Quantity) -> tuple[float, ...]:
    """Of the seeds that have the quantity on both sides."""
    values = {row.seed: value_of(row, quantity) for row in theirs.rows}
    pairs = [(value_of(row, quantity), values.get(row.seed)) for row in ours.rows]
    return tuple(a - b for a, b in pairs if a is not None and b is not None)


def _median(speed: Speed) -> float:
    return statistics.median(speed.images_per_sec)


def _rates(speed: Speed) -> str:
    """Median and range; a range wider than the ratio `NOISE` says little about the median."""
    values = speed.images_per_sec
    noise = ", noise" if max(values) > NOISE * min(values) else ""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f}{noise})"


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if theirs else MISSING
