# SPDX-License-Identifier: Apache-2.0
"""Heat maps: class distances over epochs, confusion of reconstructed labels, and numbers of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ncjax.report.figure import HEAT, INK, MARK, Chart, Figure, Record, finish, source

MOST_CLASSES = 40  # of a matrix that is drawn class by class
CELL_PIXELS = 260  # of a whole matrix
SPLITS = ("train", "test")


class DistanceMap(NamedTuple):
    """Mean squared distances between the fine classes of one kind of network at one epoch, over its seeds."""

    network: str
    epoch: int
    split: str
    matrix: Float[np.ndarray, "f f"]
    n: int


def distance_figure(
    maps: Sequence[DistanceMap], names: Sequence[str], super_class: Sequence[int], super_names: Sequence[str]
) -> Figure | None:
    """One square a network, with a slider over epochs and a switch of the split; None without a map.

    Args:
        maps: of the networks at their epochs.
        names: of the fine classes.
        super_class: of each of them; empty: no classes are merged.
        super_names: of the super-classes.
    """
    if not maps:
        return None
    many = len(names) > MOST_CLASSES
    owner = tuple(super_class) if many or len(super_class) else tuple(range(len(names)))
    shown = [one._replace(matrix=_by_group(one.matrix, owner)) for one in maps] if many else list(maps)
    labels = list(super_names) if many else list(names)
    epochs = sorted({one.epoch for one in shown})
    rows = [
        {"network": one.network, "epoch": one.epoch, "split": one.split, "class": a, "other": b}
        | {"distance": float(one.matrix[i, j]), "n": one.n, "merged": not many and i != j and owner[i] == owner[j]}
        for one in shown
        for i, a in enumerate(labels)
        for j, b in enumerate(labels)
        if np.isfinite(one.matrix[i, j])
    ]
    averaged = " Averaged over pairs of classes of two super-classes, for there are many classes." if many else ""
    return Figure(
        "class_distances",
        "Distances between classes over epochs",
        "Mean squared Euclidean distance between the features of two examples, averaged over the seeds of a setting "
        "(n in "
        "the tooltip). Framed: two classes that share a super-class; had training left nothing but its labels, they "
        "would "
        f"be as dark as the diagonal. Each square has a colour scale of its own, at each epoch.{averaged}",
        _distance_chart(rows, labels, epochs, [s for s in SPLITS if any(one.split == s for one in shown)]),
        rows,
    )


def _by_group(matrix: Float[np.ndarray, "f f"], owner: Sequence[int]) -> Float[np.ndarray, "c c"]:
    """Means over pairs of super-classes; on the diagonal over two merged classes, which are different."""
    groups = max(owner) + 1
    inside = np.eye(groups)[list(owner)]
    apart = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    counts = inside.T @ (1 - np.eye(len(matrix))) @ inside
    return np.asarray(
        np.divide(inside.T @ apart @ inside, counts, out=np.full((groups, groups), np.nan), where=counts > 0)
    )


def _distance_chart(rows: Sequence[Record], names: list[str], epochs: list[int], splits: list[str]) -> Chart:
    import altair as alt

    last = len(epochs) - 1
    slider = alt.binding_range(min=0, max=max(last, 1), step=1, name="epoch ")
    params = [alt.param(name="kept_epochs", value=epochs)]
    sliding: dict[str, Any] = {"bind": slider} if last else {}
    params.append(alt.param(name="place", value=last, **sliding))
    switch: dict[str, Any] = {"bind": alt.binding_radio(options=splits, name="split ")} if len(splits) > 1 else {}
    params.append(alt.param(name="chosen_split", value=splits[0], **switch))
    chosen = "datum.epoch == kept_epochs[place] && datum.split == chosen_split"
    networks = list(dict.fromkeys(row["network"] for row in rows))
    squares = [
        _square([row for row in rows if row["network"] == name], name, names).transform_filter(chosen)
        for name in networks
    ]
    title = alt.Title(text=alt.ExprRef("'epoch ' + kept_epochs[place] + ', ' + chosen_split + ' split'"))
    whole = alt.concat(*squares, columns=3, title=title).resolve_scale(color="independent")
    return finish(whole.add_params(*params))


def _square(rows: Sequence[Record], title: str, names: list[str]) -> Chart:
    import altair as alt

    size = max(140, min(CELL_PIXELS, 24 * len(names)))
    heading = alt.Title(title, limit=size + 60)
    base = alt.Chart(source(rows), title=heading, width=size, height=size).encode(
        x=alt.X("other:N", sort=names, title=None, scale=alt.Scale(domain=names), axis=alt.Axis(labelLimit=120)),
        y=alt.Y("class:N", sort=names, title=None, scale=alt.Scale(domain=names), axis=alt.Axis(labelLimit=120)),
    )
    colour = alt.Color(
        "distance:Q", scale=alt.Scale(scheme=HEAT), legend=alt.Legend(title=None, gradientLength=size * 0.8)
    )
    tips = ["class:N", "other:N", "distance:Q", "n:Q", "epoch:Q", "split:N"]
    cells = base.mark_rect().encode(color=colour, tooltip=tips)
    frames = base.mark_rect(filled=False, stroke=MARK, strokeWidth=2).transform_filter("datum.merged")
    return alt.layer(cells, frames)


def confusion_rows(true: Int[np.ndarray, "n"], found: Int[np.ndarray, "n"], names: Sequence[str]) -> list[Record]:
    """Cells of a confusion matrix that hold an example; `share` is of the examples of the true class, in per cent."""
    sound = found >= 0
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (true[sound], found[sound]), 1)
    totals = counts.sum(axis=1)
    return [
        {"true": names[i], "recovered": names[j], "count": int(counts[i, j]), "share": 100 * counts[i, j] / totals[i]}
        for i, j in zip(*np.nonzero(counts), strict=True)
    ]


def confusion_figure(rows: Sequence[Record], names: Sequence[str], network: str, view: str) -> Figure | None:
    """Reconstructed against true labels, with switches of the view and the split; None without a row.

    Args:
        rows: of `confusion_rows`, with `view` and `split`.
        names: of the fine classes.
        network: the member that they are of.
        view: that is drawn first.
    """
    if not rows:
        return None
    chart = _confusion_chart(rows, list(names), view)
    return Figure(
        "confusion",
        "Reconstructed against true labels",
        f"Of {network}. Share of the examples of each true class whose cluster stands for each class, in per cent; "
        "clusters "
        "are matched to classes on the training split (Hungarian method). Lines add to 100.",
        finish(chart),
        rows,
    )


def _confusion_chart(rows: Sequence[Record], labels: list[str], view: str) -> Chart:
    import altair as alt

    small = len(labels) <= 15
    views, splits = (list(dict.fromkeys(str(row[field]) for row in rows)) for field in ("view", "split"))
    first, split = view if view in views else views[0], "test" if "test" in splits else splits[0]
    of_view: dict[str, Any] = {"bind": alt.binding_select(options=views, name="view ")} if len(views) > 1 else {}
    of_split: dict[str, Any] = {"bind": alt.binding_radio(options=splits, name="split ")} if len(splits) > 1 else {}
    size = max(200, min(520, 34 * len(labels)))
    base = (
        alt.Chart(source(rows), width=size, height=size)
        .encode(
            x=alt.X(
                "recovered:N", sort=labels, scale=alt.Scale(domain=labels), title="class that the cluster stands for"
            ),
            y=alt.Y("true:N", sort=labels, scale=alt.Scale(domain=labels), title="true fine class"),
        )
        .transform_filter("datum.view == chosen_view && datum.split == chosen_split")
    )
    scale = alt.Scale(scheme="blues", domain=[0, 100])
    cells = base.mark_rect().encode(
        color=alt.Color("share:Q", scale=scale, title="% of the true class"),
        tooltip=["true:N", "recovered:N", "count:Q", "share:Q", "view:N", "split:N"],
    )
    ink = alt.condition("datum.share > 60", alt.value("white"), alt.value("black"))
    layers = [cells, base.mark_text(fontSize=10).encode(text=alt.Text("share:Q", format=".0f"), color=ink)]
    title = alt.Title(text=alt.ExprRef("chosen_view + ', ' + chosen_split + ' split'"))
    chart = alt.layer(*layers[: 1 + small]).properties(title=title)
    chart = chart.add_params(
        alt.param(name="chosen_view", value=first, **of_view), alt.param(name="chosen_split", value=split, **of_split)
    )
    return chart


def sweep_figure(rows: Sequence[Record], best: Mapping[str, str]) -> Figure | None:
    """Learning rate by weight decay, a line of squares a quantity, small multiples by label map; None: no sweep.

    Args:
        rows: with `quantity`, `label map`, `lr`, `wd`, `mean`, `sd` and `n`.
        best: whether higher or lower is better, by quantity.
    """
    drawn = [row for row in rows if row["mean"] is not None]
    if max((len({row[name] for row in drawn}) for name in ("lr", "wd")), default=0) < 2:
        return None
    import altair as alt

    quantities, maps = (list(dict.fromkeys(row[name] for row in drawn)) for name in ("quantity", "label map"))
    lines = list[Chart]()
    for quantity in quantities:
        own = [row for row in drawn if row["quantity"] == quantity]
        squares = [_sweep_square([row for row in own if row["label map"] == one], quantity, one) for one in maps]
        lines += [alt.concat(*squares, columns=4)] if len(maps) > 1 else squares
    return Figure(
        "sweep",
        "The sweep: learning rate by weight decay",
        "Mean over seeds of each setting; standard deviation and n are in the tooltip and the table. Better is "
        + ", ".join(f"{direction} for {name}" for name, direction in best.items() if direction and name in quantities)
        + ". Squares of a quantity share a colour scale, which begins at its least value.",
        finish(alt.concat(*lines, columns=1 if len(maps) > 1 else 3).resolve_scale(color="independent")),
        drawn,
    )


def _sweep_square(rows: Sequence[Record], quantity: str, label_map: str) -> Chart:
    import altair as alt

    lrs, decays = (sorted({row[name] for row in rows}) for name in ("lr", "wd"))
    base = alt.Chart(
        source(rows), title=f"{quantity}, {label_map}", width=max(90, 46 * len(decays)), height=max(60, 34 * len(lrs))
    ).encode(x=alt.X("wd:O", title="weight decay", sort=decays), y=alt.Y("lr:O", title="learning rate", sort=lrs[::-1]))
    colour = alt.Color("mean:Q", scale=alt.Scale(scheme=HEAT, zero=False), legend=alt.Legend(title=None))
    cells = base.mark_rect(stroke=INK, strokeOpacity=0.2).encode(
        color=colour, tooltip=["label map:N", "lr:O", "wd:O", "mean:Q", "sd:Q", "n:Q"]
    )
    text = base.mark_text(fontSize=10, stroke="black", strokeWidth=2.5, strokeOpacity=0.6)
    letters = base.mark_text(fontSize=10, color="white")
    return alt.layer(cells, *(mark.encode(text=alt.Text("mean:Q", format=".3~g")) for mark in (text, letters)))
