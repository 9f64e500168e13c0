# SPDX-License-Identifier: Apache-2.0
"""The result of a benchmark: one JSON file, and the tables made from such files."""

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.bench.interleave import Measured
from ncjax.distributed.environment import environment
from ncjax.errors import UserError
from ncjax.report.markdown import markdown_table
from ncjax.storage.atomic import write_json
from ncjax.storage.workdir import read_json
from ncjax.typed_json import register, structure, unstructure

MARKS = ("<!-- speed -->", "<!-- /speed -->")


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One of the implementations measured.

    Attributes:
        name: of the implementation.
        unit: of the values.
        median: of the values; as min and max None where there are none.
        setup_secs: until it was ready.
        peak_mib: the most memory, on top of its libraries.
        values: one a round; none where it failed.
        error: why it failed, or empty.
    """

    name: str
    unit: str
    median: float | None = None
    min: float | None = None
    max: float | None = None
    setup_secs: float | None = None
    peak_mib: float | None = None
    values: tuple[float, ...]
    error: str


@dataclass(frozen=True, kw_only=True)
class BenchComparison:
    """Two rows, by name; `ratio` is the median of ours over the median of theirs."""

    what: str
    ours: str
    theirs: str
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured; `cores` are those that the process may use."""

    processor: str
    cores: int | None
    memory_gib: float
    accelerator: str | None
    system: str
    torch: str | None


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """The content of a file of `ncjax bench`."""

    command: str
    machine: Machine
    versions: Mapping[str, str]
    commit: str | None
    device: str
    rows: tuple[BenchRow, ...]
    comparisons: tuple[BenchComparison, ...]
    notes: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)  # of what was trained


class Pair(NamedTuple):
    """Two rows to compare, by name."""

    what: str
    ours: str
    theirs: str


def bench_row(
    name: str,
    unit: str,
    values: Sequence[float],
    *,
    setup_secs: float | None = None,
    peak_mib: float | None = None,
    error: str = "",
) -> BenchRow:
    """Returns the row of some values."""
    spread = {f.__name__: f(values) for f in (statistics.median, min, max)} if values else {}
    return BenchRow(
        name=name, unit=unit, **spread, setup_secs=setup_secs, peak_mib=peak_mib, values=tuple(values), error=error
    )


def row_of(name: str, unit: str, measured: Measured) -> BenchRow:
    """Returns the row of a peer."""
    if not measured.values:
        return bench_row(name, unit, (), error=measured.error)
    peak_mib = measured.peak_bytes / 2**20
    return bench_row(name, unit, measured.values, setup_secs=measured.setup_secs, peak_mib=peak_mib)


def fastest(rows: Iterable[BenchRow]) -> str | None:
    """Returns the name of the row with the highest median, None where none was measured."""
    medians = {row.name: row.median for row in rows if row.median is not None}
    return max(medians, key=lambda name: medians[name]) if medians else None


def bench_result(
    command: str,
    rows: Sequence[BenchRow],
    pairs: Sequence[Pair],
    notes: Sequence[str],
    config: Mapping[str, Any] | None = None,
) -> BenchResult:
    """Returns what was measured, where and how, numbers rounded to five digits.

    Args:
        command: the command line.
        rows: the implementations.
        pairs: those compared; pairs with a side that failed are left out.
        notes: lines below the tables.
        config: of what was trained.
    """
    medians = {row.name: row.median for row in rows if row.median is not None}
    where = environment()
    return BenchResult(
        command=command,
        machine=machine(),
        versions=where.versions,
        commit=where.commit,
        device=where.device,
        rows=tuple(map(_rounded, rows)),
        comparisons=tuple(
            BenchComparison(**pair._asdict(), ratio=round(medians[pair.ours] / medians[pair.theirs], 4))
            for pair in pairs
            if pair.ours in medians and pair.theirs in medians
        ),
        notes=tuple(notes),
        config=config or {},
    )


def _rounded(row: BenchRow) -> BenchRow:
    return replace(
        row,
        median=_five_digits(row.median),
        min=_five_digits(row.min),
        max=_five_digits(row.max),
        setup_secs=_five_digits(row.setup_secs),
        peak_mib=_five_digits(row.peak_mib),
        values=tuple(float(f"{value:.5g}") for value in row.values),
    )


def _five_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def write_result(path: Path, result: BenchResult) -> None:
    """Writes a result as JSON."""
    write_json(path, unstructure(result))


def read_result(path: Path) -> BenchResult:
    """Returns what `write_result` wrote.

    Raises:
        UserError: the file is missing, or is not a result of `ncjax bench`.
    """
    where = f"{path} is not a result of ncjax bench"
    found: BenchResult = structure(BenchResult, read_json(path), where)
    names = {row.name for row in found.rows}
    for one in found.comparisons:
        if not {one.ours, one.theirs} <= names:
            raise UserError(f"{where}: it compares {one.ours!r} and {one.theirs!r}, but its rows are {sorted(names)}")
    return found


def machine() -> Machine:
    """Returns the processor, the cores that this process may use, memory, accelerator and PyTorch."""
    import jax

    device = jax.devices()[0]
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        accelerator=None if device.platform == "cpu" else f"{jax.device_count()} x {device.device_kind}",
        system=platform.platform(),
        torch=_version("torch"),
    )


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


def tables(result: BenchResult) -> str:
    """Returns Markdown: every row, then the comparisons, then the notes."""
    head = ("", "median (min to max)", "n", "secs to ready", "peak MiB")
    parts = [markdown_table([head, *map(_cells, result.rows)])]
    if result.comparisons:
        parts.append(markdown_table([("", "ours", "theirs", "ours / theirs"), *_compared(result)]))
    return "\n\n".join([*parts, *result.notes])


def _cells(row: BenchRow) -> tuple[str, ...]:
    setup, peak = ("" if number is None else f"{number:,.1f}" for number in (row.setup_secs, row.peak_mib))
    return row.name, _spread(row), str(len(row.values)), setup, peak


def speed_table(results: Mapping[str, BenchResult]) -> str:
    """Returns Markdown for the README: the comparisons of several files, each with its link.

    Args:
        results: by their paths as the README links them.
    """
    lines: list[tuple[str, ...]] = [("", "ours", "theirs", "ours / theirs", "measured on")]
    for path, result in results.items():
        where = result.machine
        on = where.accelerator or f"{where.cores} cores of {where.processor}"
        lines += [(*line, f"[{on}]({path})") for line in _compared(result)]
    return markdown_table(lines)


def replace_speed_table(page: str, table: str) -> str:
    """Returns the page with another table between its two marks."""
    before, rest = page.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}"


def _compared(result: BenchResult) -> list[tuple[str, ...]]:
    rows = {row.name: row for row in result.rows}
    return [
        (one.what, *(f"{name}: {_spread(rows[name])}" for name in (one.ours, one.theirs)), f"{one.ratio:.2f}")
        for one in result.comparisons
    ]


def _spread(row: BenchRow) -> str:
    if row.median is None or row.min is None or row.max is None:
        return f"failed: {row.error}"
    digits = 0 if row.median >= 100 else 2 if row.median >= 1 else 3
    median, low, high = (f"{number:,.{digits}f}" for number in (row.median, row.min, row.max))
    return f"{median} {row.unit} ({f'{low} to {high}' if len(row.values) > 1 else 'n = 1'})"


register(BenchRow, omit_defaults=True)
register(BenchResult, omit_defaults=True)
