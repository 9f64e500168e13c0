# SPDX-License-Identifier: Apache-2.0
"""Seconds until the command line answers: its help, and the demo on first and later starts."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ncjax.bench.result import BenchResult, Pair, bench_result, bench_row
from ncjax.errors import UserError

HELP = "ncjax --help"
CACHES = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def bench_startup(command: str, *, rounds: int, demo: tuple[str, ...] = ()) -> BenchResult:
    """`ncjax --help`, then `ncjax demo` with an empty cache folder and again with what the first start left there.

    Each is a process of its own, timed from its start; Python's own files are compiled and read before.

    Args:
        command: kept with the results.
        rounds: how often all of it is measured.
        demo: overrides of the demo.

    Raises:
        UserError: a command fails.
    """
    parts = ("until its first epoch", "whole")
    starts = ("first start", "later start")
    names = (HELP, *(f"{start}, {part}" for part in parts for start in starts))
    values: dict[str, list[float]] = {name: [] for name in names}
    _seconds(["--help"], {})
    for _ in range(rounds):
        values[HELP].append(_seconds(["--help"], {})[1])
        with tempfile.TemporaryDirectory() as folder:
            for start in starts:
                workdir = Path(folder) / start
                found = _seconds(["demo", "--workdir", str(workdir), *demo], {"XDG_CACHE_HOME": folder}, workdir)
                for part, secs in zip(parts, found, strict=True):
                    values[f"{start}, {part}"].append(secs)
    compared = [Pair(f"ncjax demo, {part}", f"later start, {part}", f"first start, {part}") for part in parts]
    return bench_result(command, [bench_row(name, "s", secs) for name, secs in values.items()], compared, [])


def _seconds(arguments: list[str], variables: dict[str, str], workdir: Path | None = None) -> tuple[float, float]:
    """Until the first line of the metrics of a run, and until the end; without such a line both are the same."""
    kept = {name: value for name, value in os.environ.items() if name not in CACHES}
    metrics, first = workdir / "metrics.jsonl" if workdir else None, 0.0
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "ncjax", *arguments],
            env=kept | variables,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        while process.poll() is None:
            if metrics and not first and metrics.exists() and metrics.stat().st_size:
                first = time.perf_counter() - started
            time.sleep(0.005)
        whole = time.perf_counter() - started
        errors.seek(0)
        if process.returncode:
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise UserError(f"ncjax {' '.join(arguments)} fails with {process.returncode}: {last}")
    return first or whole, whole
