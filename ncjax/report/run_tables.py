# SPDX-License-Identifier: Apache-2.0
"""The tables of a run: the strings of their cells, and both as Markdown for terminals and documents."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ncjax.paths import user_path
from ncjax.report.comparison import comparison_tables
from ncjax.report.groups import (
    KINDS,
    Group,
    Quantity,
    group_rows,
    labels_of,
    views_of,
)
from ncjax.report.main_result import CEILING, COARSE_TEST, COARSE_TRAIN, clp
from ncjax.report.markdown import markdown_table
from ncjax.report.number_formats import MISSING, number, percent, score
from ncjax.report.read import read_results
from ncjax.report.theory import holds_theory, theory_summary


class Cell(NamedTuple):
    """A number on the test and on the training split."""

    test: str
    train: str


class ViewCells(NamedTuple):
    """CLP in one view; accuracies in per cent."""

    clp: str
    oracle: str  # clusters matched to classes on the test set
    clusters: Cell  # share of examples whose cluster is that of their fine class
    ari: str
    nmi: str


class Line(NamedTuple):
    """One line of the tables of a run; accuracies in per cent."""

    label: str
    kind: str
    epoch: str
    seeds: int
    coarse: Cell
    probe: Cell
    nc1_coarse: Cell
    nc1_fine: Cell
    distances: tuple[str, str, str]  # of one class, of merged classes, of other classes; training split
    views: Mapping[str, ViewCells]


def table_line(group: Group, label: str, views: Iterable[str]) -> Line:
    """Returns the strings of one line of the tables."""
    nc1 = {level: _numbers(group, "nc1", level) for level in ("coarse", "fine")}
    same, merged, other = (
        number(group.values(Quantity(f"distance_{name}", "train", "within")))
        for name in ("same_class", "merged_classes", "other_classes")
    )
    return Line(
        label=label,
        kind=KINDS.get(group.kind, group.kind),
        epoch=MISSING if group.epoch is None else f"{group.epoch:g}",
        seeds=len(group.rows),
        coarse=Cell(percent(group.values(COARSE_TEST)), percent(group.values(COARSE_TRAIN))),
        probe=Cell(percent(group.values(CEILING)), percent(group.values(Quantity("probe", "train")))),
        nc1_coarse=nc1["coarse"],
        nc1_fine=nc1["fine"],
        distances=(same, merged, other),
        views={view: _view_cells(group, view) for view in views},
    )


def _numbers(group: Group, metric: str, level: str) -> Cell:
    test, train = (number(group.values(Quantity(metric, split, level))) for split in ("test", "train"))
    return Cell(test, train)


def _view_cells(group: Group, view: str) -> ViewCells:
    def values(metric: str, split: str) -> tuple[float, ...]:
        return group.values(Quantity(metric, split, view=view))

    return ViewCells(
        clp=percent(group.values(clp(view))),
        oracle=percent(values("clp_oracle", "test")),
        clusters=Cell(percent(values("cluster_accuracy", "test")), percent(values("cluster_accuracy", "train"))),
        ari=score(values("cluster_ari", "train")),
        nmi=score(values("cluster_nmi", "train")),
    )


def run_summary(workdir: str | Path) -> str:
    """Returns Markdown tables of all networks and controls at all kept epochs; accuracies in per cent.

    The first: coarse accuracy, probe on the true labels (the ceiling) and CLP by view on the test set, NC1 on the
    training set. The second: agreement of the training clusters with the fine classes, accuracy and ARI. After `ncjax
    compare` those of `comparison_tables` follow.

    Raises:
        UserError: the work directory holds no results, or they cannot be read.
    """
    workdir = user_path(workdir)
    if holds_theory(workdir):
        return theory_summary(workdir)
    results = read_results(workdir)
    groups = group_rows(results.evaluation.rows)
    views = views_of(groups, results.evaluation.views)
    lines = [table_line(group, label, views) for group, label in zip(groups, labels_of(groups), strict=True)]
    tables = [markdown_table(_main_table(lines, views)), markdown_table(_cluster_table(lines, views))]
    for table in comparison_tables(results.comparison, results.evaluation.views) if results.comparison else ():
        tables.append(f"{table.title}:\n\n{markdown_table((table.head, *table.lines))}")
    return "\n\n".join(tables)


def _main_table(lines: Iterable[Line], views: Mapping[str, str]) -> list[list[str]]:
    head = ["network", "seeds", "epoch", "coarse test", "coarse train", "true-label probe"]
    table = [[*head, *(f"CLP: {label}" for label in views.values()), "NC1 coarse", "NC1 fine"]]
    for line in lines:
        cells = [_name(line), str(line.seeds), line.epoch, line.coarse.test, line.coarse.train, line.probe.test]
        cells += [line.views[view].clp for view in views]
        table.append([*cells, line.nc1_coarse.train, line.nc1_fine.train])
    return table


def _cluster_table(lines: Iterable[Line], views: Mapping[str, str]) -> list[list[str]]:
    labels = views.values()
    table = [["network", "epoch", *(f"clusters: {label}" for label in labels), *(f"ARI: {label}" for label in labels)]]
    for line in lines:
        found = [line.views[view] for view in views]
        table.append([_name(line), line.epoch, *(one.clusters.train for one in found), *(one.ari for one in found)])
    return table


def _name(line: Line) -> str:
    return line.kind if line.label in (line.kind, "") else f"{line.kind} ({line.label})"
