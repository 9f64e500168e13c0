# SPDX-License-Identifier: Apache-2.0
"""The tables of collapse of a run: at both label levels, and of what is left inside super-classes."""

from collections.abc import Sequence
from typing import NamedTuple

from ncjax.report.groups import KINDS, Group, number

LEVELS = ("coarse", "fine")
OF_LEVEL = {
    "nc1": "NC1",
    "cdnv": "CDNV",
    "nc2_equinorm": "NC2 lengths",
    "nc2_angle": "NC2 angles",
    "nc3": "NC3",
    "nc4": "NC4",
    "effective_rank_means": "effective rank, means",
    "effective_rank_within": "effective rank, inside",
}
INSIDE = {
    "explained_variance": "explained by fine labels",
    "silhouette": "silhouette",
    "silhouette_cosine": "silhouette, cosine",
    "distance_same_class": "distance, same class",
    "distance_merged_classes": "merged classes",
    "distance_other_classes": "other classes",
}


class Line(NamedTuple):
    """One network at one level."""

    label: str
    kind: str
    level: str
    cells: tuple[tuple[str, str], ...]  # train and test


class Collapse(NamedTuple):
    """Heads and lines of both tables; no line where a run was measured without."""

    measures: tuple[str, ...]
    levels: tuple[Line, ...]
    inside_measures: tuple[str, ...]
    inside: tuple[Line, ...]
    resampled: bool  # whether a spread is that over resamples of the examples


def collapse_lines(groups: Sequence[Group], labels: Sequence[str]) -> Collapse:
    """The cells of both tables, a line a group; groups of one network have the spread of their resamples."""

    def lines(part: str, names: Sequence[str]) -> list[Line]:
        return [
            Line(label, KINDS.get(group.kind, group.kind), part, _cells(group, part, names))
            for group, label in zip(groups, labels, strict=True)
            if any(group.values("collapse", "train", part, name) for name in names)
        ]

    levels = [line for part in LEVELS for line in lines(part, tuple(OF_LEVEL))]
    return Collapse(
        tuple(OF_LEVEL.values()),
        tuple(levels),
        tuple(INSIDE.values()),
        tuple(lines("within", tuple(INSIDE))),
        any(len(group.rows) == 1 and group.rows[0].get("collapse_std") for group in groups),
    )


def _cells(group: Group, part: str, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((_cell(group, "train", part, name), _cell(group, "test", part, name)) for name in names)


def _cell(group: Group, *path: str) -> str:
    values = group.values("collapse", *path)
    resampled = group.values("collapse_std", *path) if len(group.rows) == 1 else ()
    if not values or not resampled:
        return number(values)
    return f"{number(values)} ± {resampled[0]:.2g}"
