# SPDX-License-Identifier: Apache-2.0
"""What devices exchange, read from compiled programs."""

import re

import numpy as np


def largest_collective(program: str) -> int:
    """Numbers in the largest array that devices exchange."""
    found = re.findall(r" = (.*?) (?:all-reduce|all-gather|collective-permute|all-to-all)(?:-start)?\(", program)
    assert found
    return max(
        int(np.prod([int(n) for n in dims.split(",") if n])) for x in found for dims in re.findall(r"\[([\d,]*)\]", x)
    )
