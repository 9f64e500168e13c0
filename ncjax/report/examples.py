# SPDX-License-Identifier: Apache-2.0
"""The examples of the member that the page looks at: its points, clusters, and their confusion with true classes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ncjax.errors import UserError
from ncjax.examples import Examples
from ncjax.report.example_figures import Points, data_uris
from ncjax.report.figure import Record
from ncjax.report.groups import Group, super_names
from ncjax.report.heat_maps import confusion_rows
from ncjax.report.read import Results, RowClusters, clusters_of
from ncjax.results import Row

PCA = "the first two principal axes of the super-class"
SPLITS = ("train", "test")


class Shown(NamedTuple):
    """One member with the examples that are shown of it."""

    member: str  # with its epoch
    view: str  # that its clusters are of
    method: str  # what made the coordinates inside super-classes
    points: Points
    clusters: Mapping[str, str]  # super-class of each cluster, by its name
    by_view: Mapping[str, RowClusters]


def choose_shown(results: Results, main: Group | None, class_names: Sequence[str]) -> Shown | None:
    """The first seed of the headline's setting, in the view of the headline; None where something that it needs lacks.

    Args:
        results: with examples.
        main: the setting of the headline.
        class_names: of the fine classes.
    """
    examples = results.examples
    if examples is None or main is None:
        return None
    row = next((row for row in main.rows if row.name in examples.planes and row.epoch == examples.epoch), None)
    owner = main.setting.super_class
    if row is None or len(owner) != len(class_names) or examples.train_labels.max(initial=0) >= len(class_names):
        return None
    try:
        by_view = clusters_of(results, row)
    except (UserError, StopIteration):
        by_view = {}
    fitting = {view: one for view, one in by_view.items() if _fits(one, examples, len(class_names))}
    view = results.headline if results.headline in fitting else next(iter(fitting), results.headline)
    return _shown(row, examples, fitting, view, class_names)


def _fits(clusters: RowClusters, examples: Examples, classes: int) -> bool:
    sizes = {"train": len(examples.train_labels)}
    if examples.test_labels is not None:
        sizes["test"] = len(examples.test_labels)
    lengths = {"train": len(clusters.train)} | ({} if clusters.test is None else {"test": len(clusters.test)})
    inside = clusters.matching.max(initial=-1) < classes and clusters.train.max(initial=-1) < len(clusters.matching)
    return bool(inside) and all(sizes.get(split) == length for split, length in lengths.items())


def _shown(
    row: Row, examples: Examples, by_view: Mapping[str, RowClusters], view: str, class_names: Sequence[str]
) -> Shown:
    owner, own = np.array(row.super_class), examples.train_labels[examples.rows]
    coarse = super_names(class_names, row.super_class)
    names = _cluster_names(by_view[view], class_names) if view in by_view else []
    joined = by_view[view].train[examples.rows] if names else np.full(len(own), -1)
    stands = np.array(by_view[view].matching if names else [-1])
    inside, method = _inside(row.name, examples, by_view)
    points = Points(
        whole=examples.planes[row.name].whole,
        inside=inside,
        fine=[class_names[i] for i in own],
        coarse=[coarse[i] for i in owner[own]],
        cluster=[names[i] if i >= 0 else "" for i in joined],
        right=[bool(i >= 0 and stands[i] == label) for i, label in zip(joined, own, strict=True)],
        images=[] if examples.thumbnails is None else data_uris(examples.thumbnails),
    )
    of = {} if not names else {name: coarse[i] for name, i in zip(names, by_view[view].super_class, strict=True)}
    epoch = "" if row.epoch is None else f", epoch {row.epoch}"
    return Shown(f"{row.name}{epoch}", view, method, points, of, by_view)


def _cluster_names(clusters: RowClusters, class_names: Sequence[str]) -> list[str]:
    return [f"cluster {number}: {class_names[stands]}" for number, stands in enumerate(clusters.matching)]


def _inside(name: str, examples: Examples, by_view: Mapping[str, RowClusters]) -> tuple[Float[np.ndarray, "q 2"], str]:
    """Coordinates inside super-classes: t-SNE where the results hold enough of it, else principal axes."""
    plane = next((one.embedding for one in by_view.values() if one.embedding is not None), None)
    if plane is not None and plane.ndim == 2 and plane.shape[1] == 2:
        chosen = plane[examples.rows]
        if np.isfinite(chosen).all(axis=1).mean() >= 0.5:
            return chosen, "t-SNE of the super-class"
    return examples.planes[name].inside, PCA


def confusion_of(
    results: Results, shown: Shown | None, class_names: Sequence[str], views: Mapping[str, str]
) -> list[Record]:
    """Rows of the confusion figure, of every view and split of the member that is shown."""
    examples = results.examples
    if shown is None or examples is None:
        return []
    rows: list[Record] = []
    for view, clusters in shown.by_view.items():
        for split, true in zip(SPLITS, (examples.train_labels, examples.test_labels), strict=True):
            found = clusters.recovered(split)
            if found is not None and true is not None:
                where = {"view": views.get(view, view), "split": split}
                rows += [{**where, **cell} for cell in confusion_rows(true, found, class_names)]
    return rows
