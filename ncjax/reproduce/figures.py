# SPDX-License-Identifier: Apache-2.0
"""The figures of the results page, each with the numbers that it shows in a JSON file beside it."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ncjax.report.groups import KINDS, PER_CENT, Quantity, group_rows, last_epochs, value_of
from ncjax.report.main_result import COARSE_TEST, clp
from ncjax.results import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, PAPER = "#222222", "white"
MARKS = {
    "CLP": ("o", "#0072b2"),
    "fine-label network": ("D", "#d55e00"),
    KINDS["random_init"]: ("x", "#777777"),
    KINDS["raw_pixels"]: ("+", "#777777"),
}  # colours that colour-blind people tell apart
STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ncjax",
}


class Point(NamedTuple):
    """One mark of a figure."""

    results: str
    what: str
    seed: int | None
    epoch: int | None
    x: float
    y: float | None = None  # None: the place of its results


class Drawing(NamedTuple):
    """A figure: what it shows, and how it is drawn."""

    title: str
    points: tuple[Point, ...]
    draw: Callable[["Axes", Sequence[Point]], None]

    def to_json(self) -> str:
        """The numbers, for readers and for the test that compares them with the raw results."""
        content = {"title": self.title, "points": [point._asdict() for point in self.points]}
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of `to_json`: stands in the SVG file too."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_svg(self) -> str:
        """The picture, with the digest of its numbers as its description."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        rows = len({point.results for point in self.points})
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(8, 1.6 + 0.45 * rows), layout="constrained", facecolor=PAPER)
            axes = figure.subplots()
            self.draw(axes, self.points)
            axes.set_title(self.title, loc="left", fontsize=10, color=INK)
            text = io.StringIO()
            about = {"Description": self.digest, "Creator": None, "Date": None}
            figure.savefig(text, format="svg", metadata=about)
        return text.getvalue()


def recovery_figure(results: Mapping[str, Evaluation], view: str) -> Drawing:
    """CLP in a view, of every seed, beside the test accuracy of networks on fine labels, and beside the controls."""
    points = []
    for name, found in results.items():
        for group in last_epochs(group_rows(found.rows)):
            what, quantity = {
                "trained": ("CLP", clp(view)),
                "fine": ("fine-label network", COARSE_TEST),
            }.get(group.kind, (KINDS.get(group.kind, ""), clp(view)))
            if what not in MARKS or group.layer != "features":
                continue
            for row in group.rows:
                value = value_of(row, quantity)
                if value is not None:
                    points.append(Point(name, what, row.seed, row.epoch, round(100 * value, 4)))
    return Drawing("Accuracy on the true classes of the test set, one mark a seed", tuple(points), _draw_recovery)


def _draw_recovery(axes: "Axes", points: Sequence[Point]) -> None:
    places = {name: -place for place, name in enumerate(dict.fromkeys(point.results for point in points))}
    for what, (marker, colour) in MARKS.items():
        own = [point for point in points if point.what == what]
        axes.scatter(
            [point.x for point in own],
            [places[point.results] for point in own],
            marker=marker,
            color=colour,
            label=what,
        )
    axes.set_yticks(list(places.values()), list(places))
    axes.set_ylim(min(places.values()) - 0.6, 0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"test accuracy [{PER_CENT.strip()}]")
    axes.grid(axis="x", color="#dddddd")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.3 / max(0.6, 0.45 * len(places))), ncols=4)


def collapse_figure(results: Mapping[str, Evaluation], view: str) -> Drawing:
    """Agreement of the clusters with the classes over collapse to the coarse labels, at every kept epoch."""
    points = []
    for name, found in results.items():
        for group in group_rows(found.rows):
            if group.kind != "trained" or group.layer != "features":
                continue
            for row in group.rows:
                nc1 = value_of(row, Quantity("nc1", "train", "coarse"))
                clusters = value_of(row, Quantity("cluster_accuracy", "train", view=view))
                if nc1 is not None and clusters is not None:
                    points.append(Point(name, "trained", row.seed, row.epoch, nc1, round(100 * clusters, 4)))
    title = "Clusters that are right on the training set, as the coarse classes collapse (to the left)"
    return Drawing(title, tuple(points), _draw_collapse)


def _draw_collapse(axes: "Axes", points: Sequence[Point]) -> None:
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
    for place, name in enumerate(dict.fromkeys(point.results for point in points)):
        colour = colours[place % len(colours)]
        for seed in dict.fromkeys(point.seed for point in points if point.results == name):
            own = [point for point in points if (point.results, point.seed) == (name, seed)]
            heights = [point.y if point.y is not None else float("nan") for point in own]
            axes.plot([point.x for point in own], heights, "o-", color=colour, markersize=4, linewidth=1)
        axes.plot([], [], "o-", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_ylim(50, 101)
    axes.set_xlabel("NC1 of the coarse classes, training set (0: collapsed)")
    axes.set_ylabel("clusters [%], chance of pairs: 50")
    axes.grid(color="#dddddd")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
