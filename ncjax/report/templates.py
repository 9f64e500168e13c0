# SPDX-License-Identifier: Apache-2.0
"""Templates of this folder to HTML."""

import base64
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from ncjax.report.figure import Figure, bundle, for_page, to_pdf, to_svg


class Drawn(NamedTuple):
    """A figure as a page holds it: its first picture, its description, and what its links hold."""

    svg: str
    spec: str
    pdf: str
    csv: str


def render(template: str, content: Mapping[str, Any]) -> str:
    """Returns the HTML of a template; text is escaped, and a name that the content lacks is an error.

    Args:
        template: its name in this folder.
        content: with `title` and `sections`, and what else the template names.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncjax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["draw"] = draw
    here = files("ncjax.report")
    texts = {name: here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")}
    charts = bundle() if any(section.figures for section in content["sections"]) else ""
    return environment.get_template(template).render(
        {**content, "style": texts["page.css"], "script": texts["page.js"], "charts": charts}
    )


def draw(figure: Figure) -> Drawn:
    """Returns what a page holds of a figure."""
    spec = figure.spec()
    svg = to_svg(spec)
    return Drawn(
        svg=for_page(svg, figure.name),
        spec=spec.replace("<", "\\u003c"),  # JSON inside a script element
        pdf=_data_uri("application/pdf", to_pdf(svg)),
        csv=_data_uri("text/csv", figure.csv().encode()),
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
