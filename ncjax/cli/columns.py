# SPDX-License-Identifier: Apache-2.0
"""Names and what stands beside them, as wide as the terminal."""

import shutil
import sys
import textwrap
from collections.abc import Mapping

UNBOUNDED = 10_000  # characters of a line that does not go to a terminal
LEAST = 30  # of the second column


def two_columns(rows: Mapping[str, str], width: int = 0) -> str:
    """Returns a line for each name; in a terminal, lines that are longer than it are continued under themselves.

    Args:
        rows: what stands beside each name.
        width: of the first column; 0: that of the longest name.
    """
    width = width or max(map(len, rows), default=0)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUNDED
    lines = (
        textwrap.fill(
            f"{name:{width}}  {line}".rstrip(),
            max(columns, width + 4 + LEAST),
            initial_indent="  ",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, line in rows.items()
    )
    return "\n".join(lines)
