# SPDX-License-Identifier: Apache-2.0
"""Markdown in a terminal: its tables are drawn so that they fit; files and pipes get it as it is."""

import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal

Table = list[list[str]]  # the first line is the head

MOST_NAME, MOST_CELL = 40, 32  # widths from which cells of the first column, and of the others, are wrapped
GAP = 2  # between two columns


def print_text(text: str) -> None:
    """Prints Markdown on stdout, at once; in a terminal tables that are too wide are split into several."""
    if not sys.stdout.isatty():
        print(text, flush=True)
        return
    width = shutil.get_terminal_size().columns
    for block in text_blocks(text):
        if isinstance(block, str):
            print("\n".join(wrapped(line, width) for line in block.split("\n")), flush=True)
        else:
            for table in fitting_tables(block, width):
                _print_table(table)


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console().print(_drawn(table), end="")


def text_blocks(text: str) -> Iterator[str | Table]:
    """Yields the tables of a text as lists of lines of cells, and what is between them."""
    for is_table, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("|")):
        if not is_table:
            yield "\n".join(lines)
            continue
        head, _, *body = (line.strip().strip("|").split("|") for line in lines)
        yield [[cell.strip() for cell in line] for line in (head, *body)]


def wrapped(line: str, width: int) -> str:
    """Returns a line wrapped at spaces and indented as it is; unchanged where a word is too long, as a path is."""
    if len(line) <= width or any(len(word) > width for word in line.split()):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def column_widths(table: Table) -> list[int]:
    """Returns how wide each column has to be: heads are wrapped at spaces, cells only where they are long."""
    widths = []
    for number, column in enumerate(zip(*table, strict=True)):
        head, *cells = column
        words = max(map(len, head.split()), default=1)
        most = MOST_CELL if number else MOST_NAME
        widths.append(max(1, words, *(min(most, len(cell)) for cell in cells)))
    return widths


def fitting_tables(table: Table, width: int) -> list[Table]:
    """Returns the table, or several that have its first column and as many of the others as fit the width."""
    first, *others = column_widths(table)
    parts: list[list[int]] = [[]]
    used = first
    for number, needed in enumerate(others, start=1):
        if parts[-1] and used + GAP + needed > width:
            parts.append([])
            used = first
        parts[-1].append(number)
        used += GAP + needed
    return [[[line[number] for number in (0, *part)] for line in table] for part in parts]


def _drawn(table: Table) -> object:
    """Numbers are aligned to the right."""
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), show_edge=False, pad_edge=False)
    head, *body = table
    for number, (name, width) in enumerate(zip(head, column_widths(table), strict=True)):
        wrapped = "\n".join(textwrap.wrap(name, width)) or name
        side: Literal["left", "right"] = "right" if number and _are_numbers([line[number] for line in body]) else "left"
        drawn.add_column(Text(wrapped), justify=side, max_width=width, overflow="fold", vertical="bottom")
    for line in body:
        drawn.add_row(*map(Text, line))
    return drawn


def _are_numbers(cells: Sequence[str]) -> bool:
    return all(cell[:1].isdigit() or cell[:1] in ("–", "-", "", "(") for cell in cells)
