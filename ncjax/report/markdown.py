# SPDX-License-Identifier: Apache-2.0
"""Markdown for terminals and documents."""

from collections.abc import Sequence


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table; the first line is its head, and every line has as many cells."""
    head, *body = lines
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))
