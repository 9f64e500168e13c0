# SPDX-License-Identifier: Apache-2.0
"""The figures of the results page, each with the numbers that it shows in a JSON file beside it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ncjax.report.figure import COLOURS, INK, THEME, Chart, source, to_svg
from ncjax.report.groups import KINDS, Quantity, group_rows, last_epochs, value_of
from ncjax.report.main_result import COARSE_TEST, clp
from ncjax.results import Evaluation

PAGE_INK, PAPER = "#222222", "white"
WIDTH, LINE = 560, 34  # pixels
MARKS = {
    "CLP": ("circle", COLOURS[0]),
    "fine-label network": ("diamond", COLOURS[4]),
    KINDS["random_init"]: ("cross", "#777777"),
    KINDS["raw_pixels"]: ("triangle-down", "#777777"),
}  # colours that colour-blind people tell apart


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
    draw: Callable[[Sequence[Point]], Chart]

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
        chart = self.draw(self.points).properties(title=self.title).configure(**{**THEME, "background": PAPER})
        head, tag, rest = to_svg(json.dumps(chart.to_dict())).replace(INK, PAGE_INK).partition(">")
        return f"{head}{tag}<desc>{self.digest}</desc>{rest}\n"


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


def _draw_recovery(points: Sequence[Point]) -> Chart:
    import altair as alt

    marks = {what: mark for what, mark in MARKS.items() if any(point.what == what for point in points)}
    domain, (shapes, colours) = list(marks), zip(*marks.values(), strict=True)
    names = list(dict.fromkeys(point.results for point in points))
    return (
        alt.Chart(source([point._asdict() for point in points]))
        .mark_point(filled=True, size=70, opacity=0.9)
        .encode(
            x=alt.X("x:Q", title="test accuracy [%]", scale=alt.Scale(domain=[0, 100])),
            y=alt.Y("results:N", title=None, sort=names),
            shape=alt.Shape("what:N", title=None, scale=alt.Scale(domain=domain, range=list(shapes))),
            color=alt.Color("what:N", title=None, scale=alt.Scale(domain=domain, range=list(colours))),
        )
        .properties(width=WIDTH, height=LINE * len(names))
    )


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


def _draw_collapse(points: Sequence[Point]) -> Chart:
    import altair as alt

    rows = [{**point._asdict(), "order": number} for number, point in enumerate(points)]
    base = alt.Chart(source(rows)).encode(
        x=alt.X("x:Q", title="NC1 of the coarse classes, training set (0: collapsed)", scale=alt.Scale(type="log")),
        y=alt.Y("y:Q", title="clusters [%], chance of pairs: 50", scale=alt.Scale(domain=[50, 101])),
        color=alt.Color("results:N", title=None, sort=list(dict.fromkeys(point.results for point in points))),
        detail="seed:N",
        order="order:Q",
    )
    return (base.mark_line(strokeWidth=1) + base.mark_point(filled=True, size=30)).properties(width=WIDTH, height=320)
