# SPDX-License-Identifier: Apache-2.0
"""Figures of a sweep of the synthetic setting: trajectories, the phase diagram, the hidden representation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ncjax.report.figures import COLOURS, INK, svg
from ncjax.report.theory_read import Picture, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "cosine of hidden means": {"cosine_gaussians": "two Gaussians of a label", "cosine_labels": "two labels"},
    "squared distance, a hidden unit": {
        "within": "one Gaussian",
        "between_gaussians": "two Gaussians of a label",
        "between_labels": "two labels",
    },
    "loss and recovery": {"train_loss": "training loss", "recovery": "Gaussians found by k-means"},
}
COLLAPSED = 0.75  # cosine half-way between 1/2, where frozen gates end, and 1


def trajectory_figure(steps: Int[np.ndarray, "t"], settings: Sequence[Setting], titles: Sequence[str]) -> str:
    """Draws a line of panels a setting; dots with standard errors are simulated, lines are predicted.

    Time is `lr * step`, on an axis that is linear up to the first record.
    """

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(len(settings), len(PANELS), squeeze=False)
        for line, setting, title in zip(grid, settings, titles, strict=True):
            times = steps * setting.numbers["lr"]
            for axes, (what, names) in zip(line, PANELS.items(), strict=True):
                _draw_curves(axes, times, setting, names)
                axes.set_ylabel(what)
                if "distance" in what:
                    axes.set_yscale("symlog", linthresh=_least(setting, names))
            line[0].set_title(title, fontsize=10, loc="left")
        for axes in grid[0]:
            axes.legend(fontsize=8)
        for axes in grid[-1]:
            axes.set_xlabel("time")

    return svg((11.0, 2.6 * len(settings) + 0.4), draw)


def _draw_curves(axes: "Axes", times: Float[np.ndarray, "t"], setting: Setting, names: Mapping[str, str]) -> None:
    for (name, label), colour in zip(names.items(), COLOURS, strict=False):
        if name in setting.prediction:
            axes.plot(times, setting.prediction[name], color=colour, linewidth=1.2)
        mean = setting.mean.get(name)
        if mean is not None and np.isfinite(mean).any():
            axes.errorbar(times, mean, setting.error[name], fmt="o", markersize=3, color=colour, label=label)
    axes.set_xscale("symlog", linthresh=times[1])
    axes.grid(color=INK, alpha=0.12)


def _least(setting: Setting, names: Iterable[str]) -> float:
    """The smallest positive number that is drawn: below it the axis is linear."""
    values = np.concatenate([setting.mean[name] for name in names])
    positive = values[np.isfinite(values) & (values > 1e-12)]
    return float(positive.min()) if positive.size else 1.0


def phase_figure(steps: Int[np.ndarray, "t"], settings: Sequence[Setting]) -> str:
    """Draws the final cosine in a label over noise and weight decay times time; lines half-way from 1/2 to 1."""
    noises = sorted({setting.numbers["noise"] for setting in settings})
    decays = sorted({setting.numbers["weight_decay"] for setting in settings})
    found, predicted, recovered = (np.full((len(noises), len(decays)), np.nan) for _ in range(3))
    for setting in settings:
        cell = noises.index(setting.numbers["noise"]), decays.index(setting.numbers["weight_decay"])
        found[cell] = setting.mean["cosine_gaussians"][-1]
        recovered[cell] = setting.mean["recovery"][-1]
        if setting.prediction:
            predicted[cell] = setting.prediction["cosine_gaussians"][-1]
    numbers = settings[0].numbers
    times = [decay * numbers["lr"] * steps[-1] for decay in decays]

    def draw(figure: "Figure") -> None:
        panels = [("simulated", found), ("predicted", predicted), ("Gaussians found by k-means", recovered)]
        panels = [(title, table) for title, table in panels if np.isfinite(table).any()]
        for axes, (title, table) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            low = 0.5 if "k-means" in title else 0.3
            image = axes.pcolormesh(times, np.arange(len(noises)), table, cmap="viridis", vmin=low, vmax=1)
            for boundary, style in ((found, "-"), (predicted, "--")):
                if np.nanmin(boundary, initial=1) < COLLAPSED < np.nanmax(boundary, initial=0):
                    axes.contour(times, np.arange(len(noises)), boundary, [COLLAPSED], colors="white", linestyles=style)
            axes.set_yticks(range(len(noises)), [f"{noise / numbers['norm']:g}" for noise in noises])
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("weight decay × time")
            figure.colorbar(image, ax=axes)
        figure.axes[0].set_ylabel("noise of a pre-activation at the start / its size")

    return svg((11.0, 3.6), draw)


def picture_figure(pictures: Sequence[Picture], components: int, titles: tuple[str, str]) -> str:
    """Draws hidden representations on their first two principal axes: colour is the Gaussian, shape the label."""
    if not pictures:
        return ""

    def draw(figure: "Figure") -> None:
        columns = max(len(picture.steps) for picture in pictures)
        grid = figure.subplots(len(pictures), columns, squeeze=False)
        for line, picture, title in zip(grid, pictures, titles, strict=False):
            for axes, points, step in zip(line, picture.points, picture.steps, strict=False):
                for gaussian in np.unique(picture.component):
                    x, y = points[picture.component == gaussian].T
                    marker = "osD^v*"[(gaussian // components) % 6]
                    axes.plot(x, y, marker, markersize=4, alpha=0.7, color=COLOURS[gaussian % len(COLOURS)])
                axes.set_title(f"step {step}", fontsize=9)
                axes.set_xticks([])
                axes.set_yticks([])
            line[0].set_ylabel(title, fontsize=8)

    return svg((11.0, 2.7 * len(pictures)), draw)
