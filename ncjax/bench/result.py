# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found: one JSON file, and the tables made from such files."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.bench.interleave import Measured
from ncjax.storage.workdir import environment

MARKS = ("<!-- speed -->", "<!-- /speed -->")


class Row(NamedTuple):
    """One of those measured."""

    name: str
    unit: str
    values: tuple[float, ...]  # none where it failed
    setup_secs: float | None = None  # until it was ready
    peak_mib: float | None = None
    error: str = ""  # why it failed


class Comparison(NamedTuple):
    """Two rows side by side, by name."""

    what: str
    ours: str
    theirs: str


def row_of(name: str, unit: str, measured: Measured) -> Row:
    """The row of a peer."""
    if not measured.values:
        return Row(name, unit, (), error=measured.error)
    return Row(name, unit, measured.values, measured.setup_secs, measured.peak_bytes / 2**20)


def fastest(rows: Iterable[Row]) -> str | None:
    """Name of the row with the highest median, None where none was measured."""
    measured = [row for row in rows if row.values]
    return max(measured, key=lambda row: statistics.median(row.values)).name if measured else None


def to_json(
    command: str, rows: Sequence[Row], comparisons: Sequence[Comparison], notes: Sequence[str]
) -> dict[str, Any]:
    """The content of the file: what was measured, where, and how.

    Comparisons stay where both sides were measured; `ratio` is the median of ours over the median of theirs.
    """
    medians = {row.name: statistics.median(row.values) for row in rows if row.values}
    return {
        "command": command,
        "machine": machine(),
        **environment(),
        "rows": [_row_to_json(row) for row in rows],
        "comparisons": [
            {**c._asdict(), "ratio": round(medians[c.ours] / medians[c.theirs], 4)}
            for c in comparisons
            if c.ours in medians and c.theirs in medians
        ],
        "notes": list(notes),
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    spread = {f.__name__: f(row.values) for f in (statistics.median, min, max)} if row.values else {}
    numbers = spread | {"setup_secs": row.setup_secs, "peak_mib": row.peak_mib}
    rounded = {name: float(f"{value:.5g}") for name, value in numbers.items() if value is not None}
    return {
        "name": row.name,
        "unit": row.unit,
        **rounded,
        "values": [float(f"{value:.5g}") for value in row.values],
        "error": row.error,
    }


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, accelerator and PyTorch."""
    import jax

    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerator": None if device.platform == "cpu" else f"{jax.device_count()} x {device.device_kind}",
        "system": platform.platform(),
        "torch": _version("torch"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def tables(result: dict[str, Any]) -> str:
    """Markdown: every row, then the comparisons, then the notes."""
    head = ("", "median (min to max)", "n", "secs to ready", "peak MiB")
    parts = [_markdown([head, *map(_cells, result["rows"])])]
    if result["comparisons"]:
        parts.append(_markdown([("", "ours", "theirs", "ours / theirs"), *_compared(result)]))
    return "\n\n".join(parts + result["notes"])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    found = _spread(row) if row["values"] else f"failed: {row['error']}"
    setup, peak = (f"{row[name]:,.1f}" if name in row else "" for name in ("setup_secs", "peak_mib"))
    return row["name"], found, str(len(row["values"])), setup, peak


def speed_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown for the README: the comparisons of several files, each with its link.

    Args:
        results: contents of the files by their paths as the README links them.
    """
    lines: list[tuple[str, ...]] = [("", "ours", "theirs", "ours / theirs", "measured on")]
    for path, result in results.items():
        where = result["machine"]
        on = where["accelerator"] or f"{where['cores']} cores of {where['processor']}"
        lines += [(*line, f"[{on}]({path})") for line in _compared(result)]
    return _markdown(lines)


def replace_speed_table(page: str, table: str) -> str:
    """The page with another table between its two marks."""
    before, rest = page.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}"


def _compared(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = {row["name"]: row for row in result["rows"]}
    return [
        (
            c["what"],
            *(f"{c[side]}: {_spread(rows[c[side]])}" for side in ("ours", "theirs")),
            f"{c['ratio']:.2f}",
        )
        for c in result["comparisons"]
    ]


def _spread(row: dict[str, Any]) -> str:
    digits = 0 if row["median"] >= 100 else 2 if row["median"] >= 1 else 3
    median, low, high = (f"{row[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} {row['unit']} ({low} to {high})"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = lines
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))
