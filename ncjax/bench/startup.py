# SPDX-License-Identifier: Apache-2.0
"""Seconds until the command line answers: its help, and the demo on first and later starts."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, NamedTuple

from ncjax.bench.result import BenchResult, Pair, bench_result, bench_row
from ncjax.errors import UserError
from ncjax.events import stage

HELP = "ncjax --help"
CACHES = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
PARTS = ("until its first output", "until its first epoch", "whole")
STARTS = ("first start", "later start")


class Seconds(NamedTuple):
    """Of one command, from the start of its process; what it never did takes as long as the whole."""

    output: float  # until something stood on stdout
    epoch: float  # until the first line of the metrics of a run
    whole: float


def bench_startup(command: str, *, rounds: int, demo: tuple[str, ...] = ()) -> BenchResult:
    """`ncjax --help`, then `ncjax demo` with an empty cache folder and again with what the first start left there.

    Each is a process of its own, timed from its start; Python's own files are compiled and read before. What the demo
    ended with is among the notes.

    Args:
        command: kept with the results.
        rounds: how often all of it is measured.
        demo: overrides of the demo.

    Raises:
        UserError: a command fails.
    """
    names = (HELP, *(f"{start}, {part}" for part in PARTS for start in STARTS))
    values: dict[str, list[float]] = {name: [] for name in names}
    said: dict[str, None] = {}
    _run(["--help"], {})
    with stage("measure", total=rounds * len(STARTS)) as advance:
        for number in range(rounds):
            values[HELP].append(_run(["--help"], {})[0].whole)
            with tempfile.TemporaryDirectory() as folder:
                for start in STARTS:
                    workdir = Path(folder) / start
                    arguments = ["demo", "--workdir", str(workdir), *demo]
                    found, ending = _run(arguments, {"XDG_CACHE_HOME": folder}, workdir)
                    said |= dict.fromkeys(ending)
                    for part, secs in zip(PARTS, found, strict=True):
                        values[f"{start}, {part}"].append(secs)
                    advance(1, f"{start}, round {number + 1}/{rounds}")
    compared = [Pair(f"ncjax demo, {part}", f"later start, {part}", f"first start, {part}") for part in PARTS]
    rows = [bench_row(name, "s", secs) for name, secs in values.items()]
    return bench_result(command, rows, compared, [f"The demo said: {line}" for line in said])


def _run(arguments: list[str], variables: dict[str, str], workdir: Path | None = None) -> tuple[Seconds, list[str]]:
    """How long a command took, and the last two lines that it wrote."""
    kept = {name: value for name, value in os.environ.items() if name not in CACHES}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "ncjax", *arguments], env=kept | variables, stdout=output, stderr=errors
        )
        found = _watch(process, started, output, workdir / "metrics.jsonl" if workdir else None)
        for file in (output, errors):
            file.seek(0)
        if process.returncode:
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise UserError(f"ncjax {' '.join(arguments)} fails with {process.returncode}: {last}")
        return found, [line for line in output.read().splitlines() if line][-2:]


def _watch(process: subprocess.Popen[bytes], started: float, output: IO[str], metrics: Path | None) -> Seconds:
    """Looks every 5 ms."""
    first_output = first_epoch = 0.0
    while process.poll() is None:
        now = time.perf_counter() - started
        if not first_output and os.fstat(output.fileno()).st_size:
            first_output = now
        if metrics and not first_epoch and metrics.exists() and metrics.stat().st_size:
            first_epoch = now
        time.sleep(0.005)
    whole = time.perf_counter() - started
    return Seconds(first_output or whole, first_epoch or whole, whole)
