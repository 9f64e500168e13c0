# SPDX-License-Identifier: Apache-2.0
"""Lines over epochs: mean and spread of several networks, in panels that share a legend."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ncjax.report.figure import COLOURS, INK, WIDTH, Chart, Record, finish, source

SHARES = "accuracy (%)"  # on an axis from 0 to 100
DASHES = {"train": [1, 0], "test": [5, 3]}


def point(values: Iterable[float | None], *, of_one: float | None = None, factor: float = 1.0) -> Record:
    """Mean, standard deviation and n of finite values; `low` and `high` are one standard deviation away.

    Args:
        values: one a network.
        of_one: the standard deviation that a single network holds itself, over resamples.
        factor: of all numbers.
    """
    found = [factor * value for value in values if value is not None and math.isfinite(value)]
    if not found:
        return {"mean": None, "low": None, "high": None, "sd": None, "n": 0}
    mean = statistics.fmean(found)
    own = None if of_one is None else factor * of_one
    spread = statistics.stdev(found) if len(found) > 1 else own
    around = {"low": mean - spread, "high": mean + spread} if spread is not None else {"low": None, "high": None}
    return {"mean": mean, **around, "sd": spread, "n": len(found)}


def said_spread(rows: Sequence[Record]) -> str:
    """What bands and bars are, and over how many networks."""
    counts = sorted({row["n"] for row in rows if row["n"]})
    several = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}" if counts else "n = 0"
    if counts in ([], [1]):
        return f"One seed ({several}): there is no spread over seeds"
    return f"Bands and bars are one standard deviation over seeds ({several})"


def panels(
    rows: Sequence[Record],
    *,
    by: str,
    colour: str,
    colours: Mapping[str, str] | None = None,
    dashed: str | None = None,
    log: Sequence[str] = (),
    columns: int = 3,
) -> Chart:
    """Lines with points, and bands of one standard deviation, over `epoch`.

    Args:
        rows: with `epoch`, `mean`, `low`, `high`, `n`, and the fields below.
        by: the field that names the panel; it is the title of the vertical axis too.
        colour: the field that colours lines.
        colours: of its values, in the order of the legend; None: as they come.
        dashed: the field that is solid for train and dashed for test; None: all are solid.
        log: the panels that have a logarithmic axis.
        columns: of panels in a line.
    """
    import altair as alt

    shown = colours or dict(zip(dict.fromkeys(str(row[colour]) for row in rows), COLOURS * 4, strict=False))
    parts = {name: [row for row in rows if row[by] == name] for name in dict.fromkeys(str(row[by]) for row in rows)}
    drawn = [_panel(name, part, colour, shown, dashed, name in log) for name, part in parts.items()]
    return finish(alt.concat(*drawn, columns=min(columns, len(drawn))))


def _panel(
    name: str, rows: Sequence[Record], colour: str, colours: Mapping[str, str], dashed: str | None, log: bool
) -> Chart:
    import altair as alt

    positive = log and all(row["mean"] is None or row["mean"] > 0 for row in rows)
    kept = [dict(row, low=None) if positive and (row["low"] or 0) <= 0 else dict(row) for row in rows]
    scale = alt.Scale(domain=[0, 100]) if name.endswith("(%)") else alt.Scale(type="log" if positive else "linear")
    title = f"{name}, log scale" if positive else name
    legend = alt.Legend(orient="bottom", direction="vertical", title=None, columns=2, symbolOpacity=1)
    shade = alt.Color(f"{colour}:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=legend)
    base = alt.Chart(source(kept)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, grid=False)), color=shade
    )
    y = alt.Y("mean:Q", title=title, scale=scale, axis=alt.Axis(titleLimit=300))
    dash = {} if dashed is None else {"strokeDash": _dash(dashed)}
    tips = [alt.Tooltip(f"{field}:{kind}") for field, kind in _tips(kept, colour, dashed)]
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q")
    around = [row for row in kept if row["low"] is not None and row["high"] is not None]
    split = {} if dashed is None else {"detail": f"{dashed}:N"}
    line = base.mark_line(strokeWidth=1.6).encode(y=y, **dash)
    dots = base.mark_point(size=22, filled=True, opacity=1).encode(y=y, tooltip=tips)
    bands = [band.encode(**split).properties(data=source(around))] if around else []
    return alt.layer(*bands, line, dots).properties(width=WIDTH, height=0.68 * WIDTH)


def _dash(field: str) -> Any:
    import altair as alt

    legend = alt.Legend(orient="bottom", title=None, symbolStrokeColor=INK)
    return alt.StrokeDash(
        f"{field}:N", scale=alt.Scale(domain=list(DASHES), range=list(DASHES.values())), legend=legend
    )


def _tips(rows: Sequence[Record], colour: str, dashed: str | None) -> list[tuple[str, str]]:
    names = [(colour, "N"), *([(dashed, "N")] if dashed else []), ("epoch", "Q"), ("mean", "Q")]
    return [*names, *([("sd", "Q")] if any(row["sd"] is not None for row in rows) else []), ("n", "Q")]
