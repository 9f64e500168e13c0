# SPDX-License-Identifier: Apache-2.0
"""`ncjax list`: the names in the tables of the code, with a line of each."""

import ast
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tyro

from ncjax.cli.columns import two_columns
from ncjax.cli.configs import shipped_configs, tables
from ncjax.cli.parsing import parse
from ncjax.errors import UserError, did_you_mean, first_line
from ncjax.tables import names_of, summary_of

OTHERS = "of an installed package"


class Kind(NamedTuple):
    """Things that have names.

    Attributes:
        usage: how such a name is used.
        entries: a line for each name.
    """

    usage: str
    entries: Mapping[str, str]


def list_verb(arguments: Sequence[str]) -> None:
    """Lists one kind of names, or all kinds."""

    def options(kind: tyro.conf.Positional[str] = "") -> str:
        """List what has a name, one line each.

        Args:
            kind: Which [experiments, sources, networks, label-maps or views; none: all of them].
        """
        return kind

    kind = parse("list", options, arguments)
    known = kinds()
    if kind and kind not in known:
        raise UserError(f"no kind {kind!r}{did_you_mean(kind, known)}; known: {', '.join(known)}")
    chosen = {kind: known[kind]} if kind else known
    print("\n\n".join(f"{name} ({one.usage}):\n{two_columns(one.entries)}" for name, one in chosen.items()))


def kinds() -> dict[str, Kind]:
    """Returns all names by their kind, from the tables that resolve them."""
    named = {field: _entries(*table) for field, table in tables().items()}
    return {
        "experiments": Kind("ncjax run NAME; those of the synthetic setting: ncjax theory NAME", _experiments()),
        "sources": Kind("--data.source NAME; ncjax data says what each needs", named["data.source"]),
        "networks": Kind("--model.name NAME", named["model.name"]),
        "label-maps": Kind("--labels NAME ...", named["labels"]),
        "views": Kind("--evaluate.variants NAME ...", named["evaluate.variants"]),
    }


def _entries(table: Mapping[str, object], field: str) -> dict[str, str]:
    return {name: summary_of(table[name]) if name in table else OTHERS for name in names_of(table, field)}


def _experiments() -> dict[str, str]:
    """The first line of the docstring of each shipped config; none of them is run."""
    found = {}
    for name, path in shipped_configs().items():
        try:
            found[name] = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        except (OSError, SyntaxError) as error:
            found[name] = f"cannot be read: {first_line(error)}"
    return found
