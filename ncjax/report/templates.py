# SPDX-License-Identifier: Apache-2.0
"""Templates of this folder to HTML."""

from collections.abc import Mapping


def render(template: str, content: Mapping[str, object]) -> str:
    """Returns the HTML of a template; text is escaped, and a name that the content lacks is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncjax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)
