# SPDX-License-Identifier: Apache-2.0
"""The tables of names, how a name is found, and how an installed package adds to a table.

A table is a plain dict from a name to a function or a small frozen record. A package adds a name by an entry point of
the group in `TABLES`; these are looked up only when a name is not in the table, so importing ncjax loads none of them.
"""

import inspect
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple, TypeVar, cast

from ncjax.errors import UserError, did_you_mean, first_line

T = TypeVar("T")
OWN = "own:"  # begins the name of a function that was passed as an argument


class Table(NamedTuple):
    """Where the names of a field come from."""

    group: str  # of entry points
    argument: str = ""  # of `ncjax.train` that takes a function of one's own; empty: there is none


TABLES: dict[str, Table] = {
    "model.name": Table("ncjax.networks", "network"),
    "loss.name": Table("ncjax.losses", "loss"),
    "optim.name": Table("ncjax.optimizers", "optimizer"),
    "optim.schedule": Table("ncjax.schedules", "schedule"),
    "data.augment": Table("ncjax.augmentations", "augment"),
    "data.source": Table("ncjax.sources"),
    "view": Table("ncjax.views"),
    "evaluate.headline": Table("ncjax.views"),
    "metric": Table("ncjax.metrics"),
    "label map": Table("ncjax.label_maps"),
}


def find_named(table: Mapping[str, T], name: str, field: str) -> T:
    """The entry of this name in a table, else that of an installed package.

    Args:
        table: of ncjax.
        name: what is looked for.
        field: a key of `TABLES`: the field of the config that gives the name.

    Raises:
        UserError: there is no such name (those that there are are listed), an entry point fails, or the name is that
            of a function that has to be passed again.
    """
    if name in table:
        return table[name]
    if name.startswith(OWN):
        argument = TABLES[field].argument
        raise UserError(
            f"{field} is {name!r}, a function of the caller's, which is not kept on disk; pass it again: {argument}=..."
        )
    found = find_entry_point(name, field)
    if found is None:
        known = names_of(table, field)
        listed = ", ".join(known) or "(none)"
        raise UserError(f"{field} is {name!r}, but must be one of {listed}{did_you_mean(name, known)}")
    return cast(T, found)


def find_entry_point(name: str, field: str) -> object | None:
    """What an installed package adds under this name; None: nothing.

    Raises:
        UserError: it cannot be imported.
    """
    for point in metadata.entry_points(group=TABLES[field].group, name=name):
        try:
            loaded: object = point.load()
        except Exception as error:  # of code that is not ours
            raise UserError(
                f"{field} {name!r} is {point.value} of an installed package, which fails: {first_line(error)}"
            ) from error
        return loaded
    return None


def names_of(table: Mapping[str, object], field: str) -> tuple[str, ...]:
    """The names of a table, then those that installed packages add."""
    return tuple(dict.fromkeys((*table, *sorted(metadata.entry_points(group=TABLES[field].group).names))))


def summary_of(entry: object) -> str:
    """What an entry of a table says of itself in one line: its `summary`, else the first line of its docstring."""
    summary = getattr(entry, "summary", "") or (inspect.getdoc(entry) if inspect.isroutine(entry) else "")
    return (summary or "").partition("\n")[0].rstrip(".")
