# SPDX-License-Identifier: Apache-2.0
"""How much memory a process may still take."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def free_bytes() -> int:
    """Memory that is free now: what the system can give, and what the control group of a container leaves.

    Where the system does not say (it is not Linux), half of what the machine has.
    """
    return min([_available(), *_left_by_groups()])


def machine_bytes() -> int:
    """Memory that the machine has, free or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _available() -> int:
    machine = machine_bytes()
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return machine // 2


def _left_by_groups() -> list[int]:
    """What the limit of the control group leaves, of either version; a group without limit says `max`."""
    left = []
    for limit, usage in LIMITS:
        try:
            most, used = ((GROUPS / name).read_text().strip() for name in (limit, usage))
            left.append(max(0, int(most) - int(used)))
        except (OSError, ValueError):
            continue
    return left
