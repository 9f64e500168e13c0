# SPDX-License-Identifier: Apache-2.0
"""A figure: one Vega-Altair chart that serves the page, vector files and notebooks, and its numbers as CSV."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ncjax.paths import user_path
from ncjax.storage.atomic import write_bytes, write_text

Chart: TypeAlias = Any  # of Altair, which is imported where it is needed
Record: TypeAlias = Mapping[str, Any]

INK = "currentColor"  # of the text around: charts read on light and dark pages, and are black in files
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#7f7f7f",
    "#a6761d",
)  # Okabe and Ito (2008)
HEAT: Literal["viridis"] = "viridis"
MARK = "#D55E00"  # around what is pointed out in a heat map
WIDTH = 320  # pixels of a panel
IMAGE = "image"  # the field that a tooltip shows as a picture; not in CSV
THEME: Mapping[str, Any] = {
    "background": "transparent",
    "font": "Helvetica, Arial, sans-serif",
    "axis": {
        "domainColor": INK,
        "tickColor": INK,
        "labelColor": INK,
        "titleColor": INK,
        "gridColor": INK,
        "gridOpacity": 0.12,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 11,
        "labelLimit": 260,
        "titleFontWeight": "normal",
    },
    "title": {"color": INK, "subtitleColor": INK, "fontSize": 12, "fontWeight": "normal", "anchor": "start"},
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12},
    "view": {"stroke": None},
    "range": {"category": list(COLOURS)},
    "concat": {"spacing": 24},
}


class Figure(NamedTuple):
    """A chart with what is said of it.

    Attributes:
        name: of its files, and its anchor in a page.
        title: what is shown, in a few words.
        caption: how to read it: units, spread, n, what is cut or left out.
        chart: of Altair; shows itself in a notebook.
        rows: the numbers that are drawn.
    """

    name: str
    title: str
    caption: str
    chart: Chart
    rows: Sequence[Record]

    def spec(self) -> str:
        """The Vega-Lite description as JSON; Altair has validated its parts, the tests validate the whole."""
        return json.dumps(self.chart.to_dict(validate=False), allow_nan=False, separators=(",", ":"))

    def svg(self) -> str:
        """As it is drawn first, before a slider or switch is moved."""
        return to_svg(self.spec())

    def csv(self) -> str:
        """The numbers, a line a mark; missing ones are empty."""
        names = [name for name in dict.fromkeys(name for row in self.rows for name in row) if name != IMAGE]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(["" if row.get(name) is None else row[name] for name in names] for row in self.rows)
        return text.getvalue()


def load_altair() -> None:
    """Imports Altair, which then asks for a home folder: where there is none, as in containers, any folder serves."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.sep
        try:
            import altair  # noqa: F401
        finally:
            del os.environ["HOME"]


@contextmanager
def unchecked() -> Iterator[None]:
    """Charts are made without Altair's checks of each part, a third of the time of a page; the tests make them with."""
    load_altair()
    from altair.utils.schemapi import debug_mode

    with debug_mode(False):
        yield


def finish(chart: Chart) -> Chart:
    """A chart with the colours and letters of all figures."""
    return chart.configure(**THEME)


def source(rows: Sequence[Record]) -> Any:
    """Rows as the data of a chart; a number that is not finite is null."""
    import altair as alt

    return alt.InlineData(values=[{name: _plain(value) for name, value in row.items()} for row in rows])


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value


def to_svg(spec: str) -> str:
    """SVG text of a Vega-Lite description, without a network."""
    import altair as alt
    import vl_convert

    version = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    text: str = vl_convert.vegalite_to_svg(spec, vl_version=version, show_warnings=False)
    return text


def to_pdf(svg: str) -> bytes:
    """A vector PDF of an SVG text, in black on white."""
    import vl_convert

    found: bytes = vl_convert.svg_to_pdf(svg.replace(INK, "#000000"))
    return found


def for_page(svg: str, name: str) -> str:
    """SVG text that may stand beside others on a page: what it names inside itself begins with `name`."""

    def own(tag: re.Match[str]) -> str:
        return re.sub(r"""(\bid="|url\(#|xlink:href="#)""", rf"\g<1>{name}-", tag[0])

    return re.sub(r"<[^>]*>", own, svg[svg.index("<svg") :])


def bundle() -> str:
    """The JavaScript that draws charts: Vega, Vega-Lite and Vega-Embed in one piece."""
    import altair as alt
    import vl_convert

    version = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    text: str = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]  # the snippet has a default
    return text.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def write_figures(figures: Sequence[Figure], folder: str | Path) -> tuple[Path, ...]:
    """Writes NAME.svg, NAME.pdf, NAME.csv and NAME.vl.json (Vega-Lite) of each figure.

    Args:
        figures: such as `ncjax.report.figures_of` returns.
        folder: is made where there is none.

    Raises:
        UserError: a file cannot be written.
    """
    target, written = user_path(folder), []
    for figure in figures:
        svg = figure.svg()
        texts = {".svg": svg, ".csv": figure.csv(), ".vl.json": figure.spec()}
        for suffix, text in texts.items():
            written.append(target / f"{figure.name}{suffix}")
            write_text(written[-1], text)
        written.append(target / f"{figure.name}.pdf")
        write_bytes(written[-1], to_pdf(svg))
    return tuple(written)
