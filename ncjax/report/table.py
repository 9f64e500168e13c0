# SPDX-License-Identifier: Apache-2.0
"""What a table of the page is made of: cells with the number they sort by, and columns in groups that fold."""

from typing import NamedTuple


class Cell(NamedTuple):
    """A text, small print below it, the number that it sorts by, and whether it is the best or not told from it."""

    text: str
    small: str = ""
    value: float | None = None
    mark: str = ""


class Head(NamedTuple):
    """The head of a column; columns of one group stand beside each other and fold together."""

    title: str
    small: str = ""
    hint: str = ""
    group: str = ""


class TableLine(NamedTuple):
    """A line: its label, what it is, its cells, and whether it is that of the headline."""

    label: str
    kind: str
    cells: tuple[Cell, ...]
    main: bool = False


class Table(NamedTuple):
    """A table of the page."""

    name: str  # its anchor
    head: str  # of the first column
    columns: tuple[Head, ...]
    lines: tuple[TableLine, ...]
    caption: str

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Groups of columns and how many columns each has; the empty text is that of columns in none."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found

    @property
    def folds(self) -> list[int | None]:
        """Of each column, the place of the group that it folds with; None: it always stands."""
        found: list[int | None] = []
        for place, (title, count) in enumerate(self.groups):
            found += [None, *([place if title else None] * (count - 1))]
        return found
