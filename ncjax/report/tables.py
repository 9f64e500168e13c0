# SPDX-License-Identifier: Apache-2.0
"""Tables of the page: cells with the number they sort by, columns in groups that fold, the best and its ties marked."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ncjax.report.groups import KINDS, Group, Quantity, Spread
from ncjax.report.levels import LEVELS, Column, columns_of
from ncjax.report.main_result import CEILING, COARSE_TEST, clp
from ncjax.report.number_formats import MISSING, percent, score, with_spread
from ncjax.report.run_tables import Line, table_line
from ncjax.report.table import Cell, Head, Table, TableLine
from ncjax.results import MetricInfo

BEST, TIE = "best", "tie"  # marks of cells


def kind_of(label: str, kind: str) -> str:
    """What a line is, in words; empty where its label says it already."""
    words = KINDS.get(kind, kind)
    return "" if words == label else words


def main_table(groups: Sequence[Group], labels: Sequence[str], views: Mapping[str, str], main: Group | None) -> Table:
    """Coarse accuracy, ceiling, CLP by view and NC1 of every network and control at its last epoch."""
    columns = [Head("n", "seeds"), Head("epoch"), Head("Training labels", "test (train)", group="accuracy, %")]
    columns.append(Head("True-label probe", "test (train)", group="accuracy, %"))
    columns += [Head(f"CLP: {label}", "test (oracle matching)", group="CLP, %") for label in views.values()]
    columns += [Head(f"NC1 {level}", "train (test)", group="NC1") for level in LEVELS]
    lines = [
        TableLine(label, kind_of(label, group.kind), _main_cells(group, table_line(group, label, views)), group is main)
        for group, label in zip(groups, labels, strict=True)
    ]
    several = " ± is the sample standard deviation over n seeds." if any(len(one.rows) > 1 for one in groups) else ""
    return Table(
        "main_table",
        "Network",
        tuple(columns),
        tuple(lines),
        "Accuracies in per cent. CLP: k-means inside each super-class of the training features gives labels, a linear "
        "classifier learns them, and is scored on the test set against the true fine classes; clusters are matched to "
        "classes on the training set (small print: on the test set, an upper bound). NC1: variation inside classes "
        f"relative to that between them, 0 = collapsed.{several} The marked line is the one of the headline: the first "
        "label map, learning rate and weight decay of the config.",
    )


def _main_cells(group: Group, line: Line) -> tuple[Cell, ...]:
    cells = [Cell(str(line.seeds), value=line.seeds), Cell(line.epoch, value=group.epoch)]
    cells.append(Cell(line.coarse.test, line.coarse.train, group.mean(COARSE_TEST)))
    cells.append(Cell(line.probe.test, line.probe.train, group.mean(CEILING)))
    cells += [Cell(one.clp, one.oracle, group.mean(clp(view))) for view, one in line.views.items()]
    for level, both in zip(LEVELS, (line.nc1_coarse, line.nc1_fine), strict=True):
        cells.append(Cell(both.train, both.test, group.mean(Quantity("nc1", "train", level))))
    return tuple(cells)


def cluster_table(
    groups: Sequence[Group], labels: Sequence[str], views: Mapping[str, str], main: Group | None
) -> Table:
    """Agreement of the clusters with the fine classes, by view."""
    columns = []
    for label in views.values():
        columns += [Head("accuracy", "train (test)", group=label), Head("ARI", "NMI", group=label)]
    return Table(
        "clusters",
        "Network",
        tuple(columns),
        tuple(
            TableLine(label, kind_of(label, group.kind), _cluster_cells(group, views), group is main)
            for group, label in zip(groups, labels, strict=True)
        ),
        "Share of images whose cluster is that of their fine class, in per cent. ARI (adjusted Rand index) and NMI "
        "(normalised mutual information): 1 = the clusters are the classes; ARI 0 = chance.",
    )


def _cluster_cells(group: Group, views: Mapping[str, str]) -> tuple[Cell, ...]:
    cells = []
    for view in views:
        train, test, ari, nmi = (
            Quantity(f"cluster_{name}", split, view=view)
            for name, split in (("accuracy", "train"), ("accuracy", "test"), ("ari", "train"), ("nmi", "train"))
        )
        cells.append(Cell(percent(group.values(train)), percent(group.values(test)), group.mean(train)))
        cells.append(Cell(score(group.values(ari)), score(group.values(nmi)), group.mean(ari)))
    return tuple(cells)


def distance_table(groups: Sequence[Group], labels: Sequence[str], main: Group | None) -> Table:
    """Mean squared distances inside a class, of merged classes, and of others."""
    quantities = [Quantity(f"distance_{name}", "train", "within") for name in _DISTANCES]
    return Table(
        "distances",
        "Network",
        tuple(Head(title) for title in _DISTANCES.values()),
        tuple(
            TableLine(label, kind_of(label, group.kind), tuple(_number(group, q) for q in quantities), group is main)
            for group, label in zip(groups, labels, strict=True)
        ),
        "Mean squared distance between two training images of the same fine class, of two classes merged into one "
        "super-class, and of two classes in different super-classes. Compare within a line only: networks differ in "
        "scale.",
    )


_DISTANCES = {"same_class": "same class", "merged_classes": "merged classes", "other_classes": "other classes"}


def _number(group: Group, quantity: Quantity, other: Quantity | None = None) -> Cell:
    spread = group.spread(quantity)
    small = with_spread(*group.spread(other)[:2]) if other else ""
    return Cell(with_spread(spread.mean, spread.std), small, spread.mean)


def collapse_table(
    level: str, groups: Sequence[Group], labels: Sequence[str], metrics: Mapping[str, MetricInfo], main: Group | None
) -> Table:
    """The metrics of collapse with a column, train and test, at a level: coarse, fine, or within super-classes."""
    columns = columns_of(metrics, "within" if level == "within" else "level")
    lines = [
        TableLine(label, kind_of(label, group.kind), _level_cells(group, level, columns), group is main)
        for group, label in zip(groups, labels, strict=True)
        if any(group.values(Quantity(column.metric, "train", level)) for column in columns)
    ]
    resampled = any(len(group.rows) == 1 and group.rows[0].bootstrap for group in groups)
    of_one = (
        " Of one network, ± is the standard deviation over resamples of the examples; another seed may differ more."
    )
    several = " ± is the sample standard deviation over seeds." if any(len(one.rows) > 1 for one in groups) else ""
    return Table(
        f"collapse_{level}",
        "Network",
        (Head("n", "seeds"), *(Head(c.title, "train (test)", c.hint, _family(c)) for c in columns)),
        tuple(lines),
        _LEVEL_CAPTIONS[level] + several + of_one * resampled,
    )


_LEVEL_CAPTIONS = {
    "coarse": "Collapse of the features to the coarse labels. 0 = collapsed, but for effective ranks, which count the "
    "directions that class means and the variation inside classes use. NC3 and NC4 compare the class means with the "
    "network's own classifier; a dash where it has other classes.",
    "fine": "The same to the fine labels, which a network trained on coarse labels never saw.",
    "within": "Share of the variance inside super-classes that the fine labels explain (0 to 1); silhouettes of the "
    "fine "
    "classes (-1 to 1); mean squared distance of two images of a class, of two merged classes, of two super-classes.",
}


def _family(column: Column) -> str:
    """The group of a column: NC2 of `NC2 angle`."""
    word = column.title.split()[0] if column.title else ""
    return word if word.startswith("NC") else "distance" if column.metric.startswith("distance") else "other measures"


def _level_cells(group: Group, level: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
    return (
        Cell(str(len(group.rows)), value=len(group.rows)),
        *(_number(group, Quantity(c.metric, "train", level), Quantity(c.metric, "test", level)) for c in columns),
    )


class Compared(NamedTuple):
    """A quantity of a grid: title, direction, and how values are written."""

    title: str
    quantity: Quantity
    better: str
    text: Callable[[Sequence[float]], str]


def grid_table(groups: Sequence[Group], compared: Sequence[Compared], main: Group | None) -> Table | None:
    """Settings of training beside each other, the best marked; None with fewer than two."""
    trained = [group for group in groups if group.kind == "trained"]
    if len(trained) < 2:
        return None
    marks = [_marks([group.spread(one.quantity) for group in trained], one.better) for one in compared]
    lines = []
    for place, group in enumerate(trained):
        setting = group.setting
        cells = [Cell(f"{x:g}" if x is not None else MISSING, value=x) for x in (setting.lr, setting.weight_decay)]
        cells.append(Cell(str(len(group.rows)), value=len(group.rows)))
        for one, mark in zip(compared, marks, strict=True):
            cells.append(Cell(one.text(group.values(one.quantity)), "", group.mean(one.quantity), mark[place]))
        layer = f", layer {setting.layer}" if len({one.layer for one in trained}) > 1 else ""
        lines.append(TableLine(setting.label_map + layer, "", tuple(cells), group is main))
    columns = [Head("lr"), Head("wd", hint="weight decay"), Head("n", "seeds")]
    columns += [Head(one.title, hint=f"{one.better} is better" if one.better else "") for one in compared]
    return Table(
        "grid",
        "Label map",
        tuple(columns),
        tuple(lines),
        "Every setting of training. ★ the best mean of a column; ≈ within one standard deviation of it (both spreads "
        "together), so that it is not told from the best; settings with n = 1 have no spread and are never marked ≈. "
        "The best of many settings on the test set is flattering: the headline is of the first setting, whatever is "
        "best.",
    )


def _marks(spreads: Sequence[Spread], better: str) -> list[str]:
    known = [spread.mean for spread in spreads if spread.mean is not None]
    if not better or len(known) < 2 or max(known) == min(known):
        return [""] * len(spreads)
    best = max(known) if better == "higher" else min(known)
    noise = next(spread.std if spread.over == "seeds" else None for spread in spreads if spread.mean == best)

    def mark(spread: Spread) -> str:
        if spread.mean is None or spread.mean == best:
            return BEST if spread.mean == best else ""
        both = None if noise is None or spread.std is None or spread.over != "seeds" else math.hypot(noise, spread.std)
        return TIE if both is not None and abs(spread.mean - best) <= both else ""

    return [mark(spread) for spread in spreads]
