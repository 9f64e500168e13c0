# SPDX-License-Identifier: Apache-2.0
"""Figures of a sweep of the synthetic setting: trajectories, the phase diagram, the hidden representation."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ncjax.report.figure import COLOURS, HEAT, Chart, Figure, Record, finish, source
from ncjax.report.theory_read import Picture, Setting

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
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
PANEL = 270  # pixels


def trajectory_figure(
    steps: Int[np.ndarray, "t"], settings: Sequence[Setting], titles: Sequence[str], prediction: str
) -> Figure:
    """A line of panels a setting; dots with standard errors are simulated, lines are predicted.

    Time is `lr * step`, on an axis that is linear up to the first record.

    Args:
        steps: of the records.
        settings: that are drawn.
        titles: of the settings.
        prediction: of which gates; none: there is none.
    """
    rows = [
        {"setting": title, "panel": panel, "quantity": label, "time": float(at * setting.numbers["lr"])}
        | dict(_record(setting, name, place))
        for setting, title in zip(settings, titles, strict=True)
        for panel, names in PANELS.items()
        for name, label in names.items()
        for place, at in enumerate(steps)
    ]
    drawn = [row for row in rows if row["mean"] is not None or row["predicted"] is not None]
    charts = [
        _trajectory([r for r in drawn if (r["setting"], r["panel"]) == (title, panel)], title, panel, float(steps[1]))
        for title in titles
        for panel in PANELS
    ]
    import altair as alt

    lines = f" Lines: the prediction for infinite width ({prediction} gates), in which nothing is fitted."
    whole = alt.concat(*charts, columns=len(PANELS)).resolve_scale(color="independent", x="independent")
    return Figure(
        "trajectories",
        "Simulation and prediction over time",
        "Dots: mean and standard error over the seeds that did not diverge (n in the tooltip)."
        + (lines if prediction != "none" else "")
        + " Time is learning rate × steps; its axis, and those of distances, are linear near 0 and logarithmic beyond.",
        finish(whole),
        drawn,
    )


def _record(setting: Setting, name: str, place: int) -> Record:
    mean, error = (_finite(series.get(name), place) for series in (setting.mean, setting.error))
    around = {"low": mean - error, "high": mean + error} if mean is not None and error is not None else {}
    predicted = _finite(setting.prediction.get(name), place)
    n = setting.runs - setting.diverged
    return {"mean": mean, "low": None, "high": None, "error": error, "n": n, "predicted": predicted} | around


def _finite(series: Float[np.ndarray, "t"] | None, place: int) -> float | None:
    value = None if series is None else float(series[place])
    return value if value is not None and np.isfinite(value) else None


def _trajectory(rows: Sequence[Record], title: str, panel: str, first_step: float) -> Chart:
    import altair as alt

    labels = list(PANELS[panel].values())
    times = sorted({row["time"] for row in rows if row["time"] > 0})
    values = [row["mean"] for row in rows if (row["mean"] or 0) > 1e-12]
    bent = "distance" in panel and bool(values)
    shade = alt.Color(
        "quantity:N",
        scale=alt.Scale(domain=labels, range=list(COLOURS[: len(labels)])),
        legend=alt.Legend(orient="bottom", title=None, columns=1, symbolOpacity=1),
    )
    time_scale = alt.Scale(type="symlog", constant=times[0] if times else first_step)
    scale = alt.Scale(type="symlog", constant=min(values)) if bent else alt.Scale(zero=False)
    predicted, spread, simulated = (
        [row for row in rows if row[name] is not None] for name in ("predicted", "low", "mean")
    )
    base = alt.Chart().encode(
        x=alt.X("time:Q", title="time, symlog", scale=time_scale, axis=alt.Axis(grid=False, tickCount=5, format="~g")),
        color=shade,
    )

    def y(field: str) -> Any:
        return alt.Y(
            f"{field}:Q", title=panel + ", symlog" * bent, scale=scale, axis=alt.Axis(tickCount=5, format="~g")
        )

    tips = ["quantity:N", "time:Q", "mean:Q", "error:Q", "n:Q", "predicted:Q"]
    marks = [
        (predicted, base.mark_line(strokeWidth=1.4).encode(y=y("predicted"))),
        (spread, base.mark_rule().encode(y=y("low"), y2="high:Q")),
        (simulated, base.mark_point(filled=True, size=26, opacity=1).encode(y=y("mean"), tooltip=tips)),
    ]
    layers = [mark.properties(data=source(own)) for own, mark in marks if own]
    return alt.layer(*layers).properties(title=title, width=PANEL, height=0.7 * PANEL)


def phase_figure(steps: Int[np.ndarray, "t"], settings: Sequence[Setting]) -> Figure:
    """The final cosine in a label over noise and weight decay times time; lines half-way from 1/2 to 1."""
    cells = [
        {"quantity": name, "noise": setting.numbers["noise"] / setting.numbers["norm"], "value": value}
        | {"decay_time": setting.numbers["weight_decay"] * setting.numbers["lr"] * float(steps[-1])}
        for setting in settings
        for name, value in _ends(setting).items()
        if value is not None
    ]
    rows = _with_edges(cells)
    panels = list(dict.fromkeys(row["quantity"] for row in rows))
    boundaries = [line for panel in panels[:2] for line in _boundary(rows, panel)]
    import altair as alt

    charts = [_phase(rows, boundaries, panel) for panel in panels]
    whole = alt.concat(*charts, columns=3).resolve_scale(color="independent")
    return Figure(
        "phase_diagram",
        "Phase diagram",
        "Cosine of the hidden means of two Gaussians of a label at the last step: 1/2 where the fine structure "
        "survives, 1 "
        "where it has collapsed. White: where it passes 3/4, simulated (solid) and predicted (dashed). Colour scales "
        "begin "
        "at 0.3, for k-means at 0.5 (chance of two Gaussians).",
        finish(whole),
        [dict(row) for row in cells],
    )


def _ends(setting: Setting) -> dict[str, float | None]:
    return {
        "simulated": _finite(setting.mean.get("cosine_gaussians"), -1),
        "predicted": _finite(setting.prediction.get("cosine_gaussians"), -1),
        "Gaussians found by k-means": _finite(setting.mean.get("recovery"), -1),
    }


def _with_edges(cells: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Cells with where they begin and end: half-way to their neighbours."""
    times = np.array(sorted({cell["decay_time"] for cell in cells}))
    middles = (times[1:] + times[:-1]) / 2
    first, last = (2 * times[0] - middles[0], 2 * times[-1] - middles[-1]) if len(times) > 1 else times[0] + [-0.5, 0.5]
    edges = [float(edge) for edge in (first, *middles, last)]
    of = {float(time): (edges[i], edges[i + 1]) for i, time in enumerate(times)}
    return [dict(cell, start=of[cell["decay_time"]][0], end=of[cell["decay_time"]][1]) for cell in cells]


def _boundary(rows: Sequence[Mapping[str, Any]], panel: str) -> Iterator[Record]:
    """Where each line of the diagram passes 3/4, by linear interpolation."""
    for noise in sorted({row["noise"] for row in rows}):
        line = sorted((r["decay_time"], r["value"]) for r in rows if (r["quantity"], r["noise"]) == (panel, noise))
        for (a, low), (b, high) in pairwise(line):
            if (low - COLLAPSED) * (high - COLLAPSED) < 0:
                yield {"boundary": panel, "noise": noise, "decay_time": a + (b - a) * (COLLAPSED - low) / (high - low)}
                break


def _phase(rows: Sequence[Mapping[str, Any]], boundaries: Sequence[Mapping[str, Any]], panel: str) -> Chart:
    import altair as alt

    noises = sorted({row["noise"] for row in rows}, reverse=True)
    low = 0.5 if "k-means" in panel else 0.3
    y = alt.Y(
        "noise:O", sort=noises, title="noise / size of a pre-activation at the start", axis=alt.Axis(format=".2~g")
    )
    heat = alt.Color(
        "value:Q", scale=alt.Scale(scheme=HEAT, domain=[low, 1], clamp=True), legend=alt.Legend(title=None)
    )
    title = "weight decay × time"
    cells = alt.Chart(source([row for row in rows if row["quantity"] == panel]), title=panel, width=220, height=220)
    scale = alt.Scale(zero=False, nice=False)
    cells = cells.mark_rect().encode(
        x=alt.X("start:Q", title=title, scale=scale),
        x2="end:Q",
        y=y,
        color=heat,
        tooltip=["noise:O", "decay_time:Q", "value:Q"],
    )
    dashes = alt.Scale(domain=["simulated", "predicted"], range=[[1, 0], [5, 4]])
    lines = alt.Chart(source(boundaries)).mark_line(color="white", strokeWidth=2)
    lines = lines.encode(
        x=alt.X("decay_time:Q", title=title, scale=scale),
        y=y,
        order="noise:Q",
        strokeDash=alt.StrokeDash("boundary:N", scale=dashes, legend=None),
    )
    return alt.layer(cells, lines) if boundaries else cells


def picture_figure(pictures: Sequence[Picture], components: int, titles: tuple[str, str]) -> Figure | None:
    """Hidden representations on their first two principal axes: colour is the Gaussian, shape the label."""
    if not pictures:
        return None
    rows = [
        {"panel": f"{title}, step {step}", "x": float(x), "y": float(y), "Gaussian": int(gaussian)}
        | {"label": int(gaussian // components)}
        for picture, title in zip(pictures, titles, strict=False)
        for points, step in zip(picture.points, picture.steps, strict=False)
        for (x, y), gaussian in zip(points, picture.component, strict=True)
    ]
    import altair as alt

    axis = alt.Axis(labels=False, ticks=False, title=None, grid=False, domainOpacity=0.3)
    charts = [
        alt.Chart(source([row for row in rows if row["panel"] == panel]), title=panel, width=190, height=190)
        .mark_point(filled=True, size=22, opacity=1, fillOpacity=0.75, strokeWidth=0, aria=False)
        .encode(
            x=alt.X("x:Q", axis=axis, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", axis=axis, scale=alt.Scale(zero=False)),
            color=alt.Color("Gaussian:N", scale=alt.Scale(range=list(COLOURS))),
            shape=alt.Shape("label:N", scale=alt.Scale(range=list(SHAPES))),
            tooltip=["Gaussian:N", "label:N"],
        )
        for panel in dict.fromkeys(row["panel"] for row in rows)
    ]
    return Figure(
        "hidden_representation",
        "The hidden representation",
        "Seed 0 of the first and of the last setting, on the two principal axes of that time, each with its own scale. "
        "Colour: Gaussian; shape: label.",
        finish(alt.concat(*charts, columns=4)),
        rows,
    )
