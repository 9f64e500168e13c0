# SPDX-License-Identifier: Apache-2.0
"""What asynchronous checkpoints cost: `python docs/scripts/checkpoint_cost.py CONFIG [--data.path FOLDER ...]`.

Trains for 2 x PAIRS (5) windows of WINDOW_SECS (60), which the environment sets, alternately without a checkpoint and
with one at the start of the window. Prints the images/s of each, by the clock and by the seconds that the process had a
core, which other work on the machine changes less; and what the ratio is for one checkpoint every five minutes, where a
checkpoint costs as many seconds as here.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding

from ncjax.cli.configs import config_and_workdir, start
from ncjax.data import load_dataset
from ncjax.distributed.mesh import REPLICATED
from ncjax.distributed.sharding import put
from ncjax.training.checkpoints import finish, open_checkpoints, save
from ncjax.training.loop import prepare
from ncjax.training.state import init_state
from ncjax.training.step import compile_chunk

FIVE_MINUTES = 300.0
Clock = Callable[[], float]


def main() -> None:
    """Measure and print one line of JSON."""
    window, pairs = float(os.environ.get("WINDOW_SECS", "60")), int(os.environ.get("PAIRS", "5"))
    config, _ = config_and_workdir(start("train", sys.argv[1:]))
    run = prepare(config, load_dataset(config.data))
    state = init_state(run.spec, run.ensemble)
    chunk = compile_chunk(run.spec, state, run.images, run.ensemble)
    images = config.optim.batch * len(run.members)
    rates: dict[str, list[list[float]]] = {"without": [], "with": []}
    blocked: list[float] = []
    with tempfile.TemporaryDirectory() as folder, open_checkpoints(Path(folder)) as checkpoints:
        for number in range(2 * pairs + 1):  # the first one warms up
            kind = ("without", "with")[number % 2]
            clocks: tuple[Clock, Clock] = (time.perf_counter, time.process_time)
            began, first = [clock() for clock in clocks], int(state.step)
            if kind == "with":
                save(checkpoints, state)
                blocked.append(time.perf_counter() - began[0])
            while time.perf_counter() - began[0] < window:
                at, epoch = int(state.step), run.spec.steps_per_epoch
                end = min(at + config.chunk_steps, (at // epoch + 1) * epoch)
                stop = put(np.int32(end), NamedSharding(run.spec.mesh, REPLICATED))
                state, _ = chunk(state, run.images, run.ensemble, stop)
                jax.block_until_ready(state)
            done = images * (int(state.step) - first)
            if number:
                rates[kind].append([done / (clock() - then) for clock, then in zip(clocks, began, strict=True)])
            finish(checkpoints)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / len(
            checkpoints.all_steps()
        )
    print(
        json.dumps(
            {
                "config": config.name,
                "members": len(run.members),
                "checkpoint_bytes": int(size),
                "window_secs": window,
                "save_secs": _summary(blocked),
                **_compared(rates, window),
            }
        )
    )


def _compared(rates: dict[str, list[list[float]]], window: float) -> dict[str, object]:
    found: dict[str, object] = {}
    for index, name in enumerate(("wall", "cpu")):
        without, with_one = ([rate[index] for rate in rates[kind]] for kind in ("without", "with"))
        ratios = [b / a for a, b in zip(without, with_one, strict=True)]
        found[f"images_per_{name}_sec"] = {"without": _summary(without), "with": _summary(with_one)}
        found[f"{name}_ratio"] = _summary(ratios)
        found[f"{name}_ratio_every_five_minutes"] = 1 - (1 - statistics.median(ratios)) * window / FIVE_MINUTES
    return found


def _summary(numbers: list[float]) -> dict[str, object]:
    return {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers), "n": len(numbers)}


if __name__ == "__main__":
    main()
