# SPDX-License-Identifier: Apache-2.0
"""Speed of this checkout beside another one's: the timers of `ncjax bench`, and whole commands, alternately.

    python docs/scripts/compare_checkouts.py OTHER [--cifar FOLDER] [--rounds 5] [--output FILE.json]

Each side of a timer is a process of its own that is set up once; the sides take turns, and each round begins with the
other side. Commands start afresh with an empty cache folder, then once more with what they left there.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from ncjax.distributed.environment import environment
from ncjax.report.markdown import markdown_table
from ncjax.storage.atomic import write_json
from ncjax.typed_json import unstructure

HERE = Path(__file__).resolve().parents[2]
TIMERS = {
    "train, one member of digits_demo": "timer = train('digits_demo')",
    "train, width 16": "timer = train('coarse_cifar10_cpu', cifar)",
    "kmeans, super-classes": "from ncjax.bench.kmeans import ncjax_timer\n"
    "timer = rate(ncjax_timer('super-classes', None, Path(tempfile.mkdtemp()) / 'labels.npy'))",
    "collapse": "from ncjax.bench.collapse import ncjax_timer\ntimer = rate(ncjax_timer())",
}  # each makes a function that gives a speed
WORKER = """
import dataclasses, os, sys, tempfile
from pathlib import Path
cifar = sys.argv[1]
def train(name, path=''):
    from ncjax.bench.training import jax_timer
    from ncjax.config import load_config
    config = load_config(Path(os.environ['PYTHONPATH']) / 'configs' / f'{{name}}.py')
    data = dataclasses.replace(config.data, path=path, source='cifar10') if path else config.data
    return jax_timer(dataclasses.replace(config, labels=config.labels[:1], seeds=1, data=data))
def rate(secs):
    return lambda: 1 / secs()
{setup}
timer()
print('ready', flush=True)
for _ in sys.stdin:
    print(timer(), flush=True)
"""
COMMANDS = {
    "ncjax --help": ["--help"],
    "ncjax demo, first start": ["demo"],
    "ncjax demo, later start": ["demo"],  # in the cache folders that the first starts filled
}


class Compared(NamedTuple):
    """Speeds of both checkouts, one a round; those of commands are 1 / seconds."""

    what: str
    other: tuple[float, ...]
    this: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median speed of this checkout over that of the other."""
        return statistics.median(self.this) / statistics.median(self.other)


def alternately(rounds: int, measure: Callable[[int, int], float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`measure(side, round)` of both sides, which take turns in beginning a round."""
    values: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            values[side].append(measure(side, number))
    return tuple(values[0]), tuple(values[1])


def start_timer(checkout: Path, setup: str, cifar: str) -> tuple[subprocess.Popen[str], Callable[[], float]]:
    """A process of a checkout that is ready to measure."""
    variables = os.environ | {"PYTHONPATH": str(checkout), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER.format(setup=setup), cifar],
        env=variables,
        cwd=tempfile.gettempdir(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    to: IO[str] | None = process.stdin
    back: IO[str] | None = process.stdout
    assert to is not None
    assert back is not None
    if back.readline().strip() != "ready":
        raise SystemExit(f"the timer of {checkout} fails: {setup}")

    def measure() -> float:
        print(file=to, flush=True)
        return float(back.readline())

    return process, measure


def compare_timers(what: str, checkouts: Sequence[Path], cifar: str, rounds: int) -> Compared:
    """One timer of both checkouts."""
    started = [start_timer(checkout, TIMERS[what], cifar) for checkout in checkouts]
    try:
        return Compared(what, *alternately(rounds, lambda side, number: started[side][1]()))
    finally:
        for process, _ in started:
            process.kill()


def run_command(checkout: Path, arguments: Sequence[str], cache: str) -> float:
    """1 / seconds of a command of a checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    variables = kept | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": cache}
    started = time.perf_counter()
    command = [sys.executable, "-m", "ncjax", *arguments]
    subprocess.run(command, env=variables, cwd=cache, check=True, capture_output=True)
    return 1 / (time.perf_counter() - started)


def compare_commands(checkouts: Sequence[Path], rounds: int) -> Iterator[Compared]:
    """Every command, in a cache folder of its own for each side and round."""
    with tempfile.TemporaryDirectory() as root:

        def run(arguments: Sequence[str], side: int, number: int) -> float:
            cache = Path(root) / f"{side}_{number}"
            cache.mkdir(exist_ok=True)
            workdir = ["--workdir", tempfile.mkdtemp(dir=cache)] if "demo" in arguments else []
            return run_command(checkouts[side], [*arguments, *workdir], str(cache))

        for what, arguments in COMMANDS.items():
            yield Compared(what, *alternately(rounds, partial(run, arguments)))


def main() -> None:
    """Measure, print a table, and write the values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="another checkout, whose dependencies are installed here")
    parser.add_argument("--cifar", default="", help="folder of CIFAR-10 as distributed; none: width 16 is left out")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of what is measured; none: all")
    parser.add_argument("--output", type=Path, help="JSON with every value")
    options = parser.parse_args()
    checkouts = (options.other.resolve(), HERE)
    wanted = [what for what in TIMERS if chosen(what, options.only) and (options.cifar or "width 16" not in what)]
    found: list[Compared] = []
    for what in wanted:
        found.append(compare_timers(what, checkouts, options.cifar, options.rounds))
        keep(options.output, found)
    if chosen("commands", options.only):
        for one in compare_commands(checkouts, options.rounds):
            found.append(one)
            keep(options.output, found)
    lines = [("", "this / other", "n"), *((one.what, f"{one.ratio:.2f}", str(len(one.this))) for one in found)]
    print(markdown_table(lines))


def keep(output: Path | None, found: Sequence[Compared]) -> None:
    """Write what was measured so far."""
    if output:
        rows = [{**one._asdict(), "ratio": round(one.ratio, 4)} for one in found]
        write_json(output, {"rows": rows, **unstructure(environment())})


def chosen(what: str, only: Sequence[str]) -> bool:
    """Whether a measurement is asked for."""
    return not only or any(what.startswith(name) for name in only)


if __name__ == "__main__":
    main()
