# SPDX-License-Identifier: Apache-2.0
"""Tables over several settings: what the coarse network leaves, beside the network that was told the classes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ncjax.report.groups import Group, Quantity, group_rows, last_epochs, value_of
from ncjax.report.main_result import CEILING, COARSE_TEST, COARSE_TRAIN, clp
from ncjax.report.markdown import markdown_table
from ncjax.report.number_formats import MISSING, number, percent
from ncjax.reproduce.intervals import difference, written
from ncjax.results import Comparison, Evaluation, Row

SIDES = ("ncjax", "PyTorch")


class Compared(NamedTuple):
    """A quantity, and how a difference of it is written."""

    title: str
    quantity: Quantity
    form: str = ".1f"
    scale: float = 100.0  # per cent


def recovery_table(results: Mapping[str, Evaluation], view: str) -> str:
    """Markdown: a line for each setting of hyper-parameters, at its last epoch.

    The last column is CLP in the view minus the test accuracy of networks trained on the fine labels, in points, with
    its 95 % interval.

    Args:
        results: by the name of each.
        view: of the headline, named before the runs.
    """
    head = ("results", "labels", "n", "coarse train", "NC1 coarse", "clusters", "probe", "CLP", "fine network", "n")
    lines: list[tuple[str, ...]] = [(*head, "CLP minus fine network")]
    for name, found in results.items():
        groups = _last_groups(found)
        told = {_hyper(group): group for group in groups if group.kind == "fine"}
        trained = [group for group in groups if group.kind == "trained"]
        lines += [_recovery_line(name, group, told.get(_hyper(group)), view) for group in trained]
    return markdown_table(lines)


def _hyper(group: Group) -> tuple[object, ...]:
    return group.setting.lr, group.setting.weight_decay, group.setting.super_class


def _recovery_line(name: str, group: Group, told: Group | None, view: str) -> tuple[str, ...]:
    clusters = Quantity("cluster_accuracy", "train", view=view)
    gap = None if told is None else difference(by_seed(group.rows, clp(view)), by_seed(told.rows, COARSE_TEST))
    return (
        name,
        _setting(group),
        str(len(group.rows)),
        percent(group.values(COARSE_TRAIN)),
        number(group.values(Quantity("nc1", "train", "coarse"))),
        percent(group.values(clusters)),
        percent(group.values(CEILING)),
        percent(group.values(clp(view))),
        MISSING if told is None else percent(told.values(COARSE_TEST)),
        MISSING if told is None else str(len(told.rows)),
        written(gap, scale=100.0),
    )


def _setting(group: Group) -> str:
    one = group.setting
    hyper = "" if one.lr is None or one.weight_decay is None else f", lr {one.lr:g}, wd {one.weight_decay:g}"
    return one.label_map + hyper


def change_table(results: Mapping[str, Evaluation], view: str) -> str:
    """Markdown: a line for each trained setting, at its last epoch, beside the first of all.

    Changes are in points: a setting minus the first one, by seed where both have the same, with the 95 % interval.

    Args:
        results: by the name of each.
        view: that was clustered.
    """
    compared = (
        Compared("clusters", Quantity("cluster_accuracy", "train", view=view)),
        Compared("probe", CEILING),
        Compared("CLP", clp(view)),
    )
    trained = [
        (name, group) for name, found in results.items() for group in _last_groups(found) if group.kind == "trained"
    ]
    head = ("results", "labels", "n", "coarse train", "NC1 coarse", *(one.title for one in compared))
    lines: list[tuple[str, ...]] = [(*head, *(f"{one.title}, change" for one in compared))]
    for name, group in trained:
        about = (name, group.setting.label_map, str(len(group.rows)), percent(group.values(COARSE_TRAIN)))
        nc1 = number(group.values(Quantity("nc1", "train", "coarse")))
        values = [percent(group.values(one.quantity)) for one in compared]
        changes = [_change(group, trained[0][1], one.quantity) for one in compared]
        lines.append((*about, nc1, *values, *changes))
    return markdown_table(lines)


def _change(group: Group, first: Group, quantity: Quantity) -> str:
    if group is first:
        return MISSING
    return written(difference(by_seed(group.rows, quantity), by_seed(first.rows, quantity)), scale=100.0)


def _last_groups(found: Evaluation) -> tuple[Group, ...]:
    """Each setting at its last epoch, at the input of the last layer."""
    return last_epochs([group for group in group_rows(found.rows) if group.layer == "features"])


def by_seed(rows: Sequence[Row], quantity: Quantity) -> dict[int, float]:
    """The values of a quantity by the seed of their member."""
    return {row.seed: value for row in rows if row.seed is not None and (value := value_of(row, quantity)) is not None}


def comparison_differences(comparison: Comparison) -> str:
    """Markdown: for each quantity the difference of means, ours minus PyTorch's, seed by seed, with its 95 % interval.

    Accuracies are in per cent, their differences in points.
    """
    lines: list[tuple[str, ...]] = [("", *SIDES, "difference, 95 % interval")]
    for (title, _, form, scale), sides in _both_sides(comparison):
        means = [_mean(list(side.values()), scale) for side in sides]
        lines.append((title, *means, written(difference(*sides), form, scale)))
    return markdown_table(lines)


def unlike(comparison: Comparison) -> tuple[str, ...]:
    """What differs between the sides of a comparison: the quantities whose interval leaves 0 out."""
    found = [(one.title, difference(*sides)) for one, sides in _both_sides(comparison)]
    return tuple(title for title, one in found if one and one.half is not None and abs(one.mean) > one.half)


def _both_sides(comparison: Comparison) -> list[tuple[Compared, tuple[dict[int, float], dict[int, float]]]]:
    """The quantities of a comparison, each by seed on both sides."""
    ours, theirs = (comparison.rows.get(side, ()) for side in SIDES)
    views = list(dict.fromkeys(m.view for row in ours for m in row.measurements if m.view is not None))
    compared = [
        Compared("coarse test", COARSE_TEST),
        Compared("true-label probe", CEILING),
        *(Compared(f"CLP: {view}", clp(view)) for view in views),
        *(Compared(f"clusters: {view}", Quantity("cluster_accuracy", "train", view=view)) for view in views),
        Compared("NC1 coarse", Quantity("nc1", "train", "coarse"), ".3g", 1.0),
        Compared("NC1 fine", Quantity("nc1", "train", "fine"), ".3g", 1.0),
    ]
    return [(one, (by_seed(ours, one.quantity), by_seed(theirs, one.quantity))) for one in compared]


def _mean(values: Sequence[float], scale: float) -> str:
    return percent(values) if scale == 100 else number(values)


def recipe_table(results: Mapping[str, Evaluation]) -> str:
    """Markdown: test accuracy of networks on fine labels by recipe, the best first; differences to the first recipe."""
    accuracies = {
        name: by_seed([row for row in _last(found) if row.kind == "fine"], COARSE_TEST)
        for name, found in results.items()
    }
    reference, first = next(iter(accuracies.items()), ("", {}))
    order = sorted(accuracies, key=lambda name: -sum(accuracies[name].values()) / max(1, len(accuracies[name])))
    lines = [("recipe", "n", "validation accuracy", f"minus {reference}")]
    for name in order:
        of = accuracies[name]
        lines.append((name, str(len(of)), percent(list(of.values())), written(difference(of, first), scale=100.0)))
    return markdown_table(lines)


def _last(found: Evaluation) -> list[Row]:
    return [row for group in last_epochs(group_rows(found.rows)) for row in group.rows]
