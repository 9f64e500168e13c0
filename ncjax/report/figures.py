# SPDX-License-Identifier: Apache-2.0
"""Figures of the page as SVG text whose ink is the page's own text colour, so that they read in light and dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ncjax.report.groups import Group
from ncjax.report.main_result import CEILING, clp
from ncjax.storage.metrics import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # replaced by the page's text colour
COLOURS = ("#3b82c4", "#e08a2e", "#3f9e6b", "#9a6fd0", "#d1525b", "#8a8f98", "#b5892c", "#2ba3a8")
STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.frameon": False,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "ncjax",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
FEW_MEMBERS = 8


def svg(size: tuple[float, float], draw: Callable[["Figure"], None]) -> str:
    """The SVG text of what `draw` puts on a figure of this size, in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)  # inherited from the page
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'style="max-width: {size[0]}in"', svg, count=1)


def as_written(text: str) -> str:
    """A name of a user for a figure: matplotlib takes what stands between two `$` for a formula."""
    return text.replace("$", r"\$")


def accuracy_figure(groups: Sequence[Group], labels: Sequence[str], views: Mapping[str, str]) -> str:
    """Draws one line a group: CLP test accuracy by view as dots, the true-label probe as a tick.

    Args:
        groups: from top to bottom.
        labels: of the groups.
        views: labels of the views, by name.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        heights = np.arange(len(groups))
        for height, group in enumerate(groups):
            ceiling = group.mean(CEILING)
            if ceiling is not None:
                axes.plot([100 * ceiling] * 2, [height - 0.32, height + 0.32], color=INK, linewidth=2)
        for colour, (name, label) in zip(COLOURS, views.items(), strict=False):
            means = [group.mean(clp(name)) for group in groups]
            points = [(100 * mean, height) for height, mean in enumerate(means) if mean is not None]
            x, y = zip(*points, strict=True) if points else ((), ())
            axes.plot(x, y, "o", color=colour, markersize=8, alpha=0.9, label=as_written(f"CLP, {label}"))
        axes.plot([], [], color=INK, linewidth=2, label="true-label probe (ceiling)")
        axes.set_yticks(heights, list(map(as_written, labels)))
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlabel("test accuracy on the fine classes [%]")
        axes.grid(axis="x", color=INK, alpha=0.15)
        figure.legend(loc="outside upper left", ncols=3 if len(views) == 2 else 2)

    return svg((8.5, 1.3 + 0.42 * len(groups)), draw)


def distance_figure(maps: Sequence[tuple[str, Float[np.ndarray, "f f"]]], names: Sequence[str]) -> str:
    """Draws class distances of last-layer features, one square a network; each has its own scale."""
    written = list(map(as_written, names))

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(maps), squeeze=False)[0]
        for axes, (title, matrix) in zip(panels, maps, strict=True):
            image = axes.imshow(matrix, cmap="viridis", interpolation="nearest")
            axes.set_title(as_written(title), fontsize=10)
            axes.spines[:].set_visible(False)
            if names and len(names) == len(matrix) <= 20:
                axes.set_xticks(range(len(names)), written, rotation=90)
                axes.set_yticks(range(len(names)), written if axes is panels[0] else [""] * len(names))
            else:
                axes.set_xlabel("fine class")
            bar = figure.colorbar(image, ax=axes, shrink=0.75)
            bar.outline.set_visible(False)

    return svg((min(3.6 * len(maps) + 0.8, 11.0), 3.8), draw)


def curves_figure(metrics: Sequence[Record]) -> str:
    """Draws loss and accuracy over epochs; each member is a line, or mean and range where there are many."""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, 2)
        for axes, what, factor in zip(panels, ("loss", "accuracy"), (1, 100), strict=True):
            for split, colour in (("train", COLOURS[1]), ("test", COLOURS[0])):
                times, values = _series(metrics, f"{split}_{what}")
                _draw_members(axes, times, factor * values, colour, split)
            axes.set_xlabel("epoch")
            axes.locator_params(axis="x", integer=True)
            axes.set_ylabel("accuracy [%]" if what == "accuracy" else "cross-entropy [nat]")
            axes.grid(color=INK, alpha=0.12)
        panels[0].set_yscale("log")
        if panels[1].get_legend_handles_labels()[0]:
            panels[1].legend()

    return svg((9.5, 3.3), draw)


def epochs_figure(groups: Sequence[Group], views: Mapping[str, str]) -> str:
    """Draws CLP test accuracy and its ceiling over the epochs whose features were kept.

    Args:
        groups: of one setting.
        views: labels of the views, by name.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        ordered = sorted(groups, key=lambda group: group.epoch or 0)
        lines = [("true-label probe (ceiling)", INK, CEILING)]
        lines += [
            (f"CLP, {label}", colour, clp(name)) for (name, label), colour in zip(views.items(), COLOURS, strict=False)
        ]
        for name, colour, quantity in lines:
            means = np.array([100 * (group.mean(quantity) or np.nan) for group in ordered])
            axes.plot(
                [group.epoch or 0 for group in ordered], means, "o-", color=colour, markersize=4, label=as_written(name)
            )
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("test accuracy [%]")
        axes.grid(color=INK, alpha=0.12)
        axes.legend()

    return svg((7.0, 3.3), draw)


def _series(metrics: Sequence[Record], name: str) -> tuple[Float[np.ndarray, "t"], Float[np.ndarray, "t s"]]:
    """Epochs and values of the records that have this metric; NaN where a member has none."""
    records = [record for record in metrics if record.values.get(name)]
    members = list(dict.fromkeys(member for record in records for member in record.values[name]))
    values = [[record.values[name].get(member) for member in members] for record in records]
    times = np.array([record.epoch for record in records], np.float64)
    return times, np.array(values, np.float64).reshape(len(records), len(members))


def _draw_members(
    axes: "Axes", times: Float[np.ndarray, "t"], values: Float[np.ndarray, "t s"], colour: str, label: str
) -> None:
    if values.size == 0:
        return
    if values.shape[1] <= FEW_MEMBERS:
        lines = axes.plot(times, values, color=colour, linewidth=1.4, alpha=0.85)
        lines[0].set_label(label)
        return
    finite = np.ma.masked_invalid(values)
    axes.plot(times, finite.mean(axis=1), color=colour, linewidth=1.6, label=f"{label}: mean and range")
    axes.fill_between(times, finite.min(axis=1), finite.max(axis=1), color=colour, alpha=0.2, linewidth=0)
