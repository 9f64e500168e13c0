# SPDX-License-Identifier: Apache-2.0
"""What observing collapse during training costs: `python docs/scripts/observe_cost.py CONFIG [--data.path FOLDER ...]`.

A step is timed by chunks of `chunk_steps`, an observation on `evaluate.observe_images`; both after compilation, median
of five.
"""

import json
import statistics
import sys
import time

import jax
import numpy as np
from jax.sharding import NamedSharding

from ncjax.cli.configs import config_and_workdir, start
from ncjax.data import load_dataset
from ncjax.distributed.mesh import REPLICATED
from ncjax.distributed.sharding import put
from ncjax.training.loop import prepare
from ncjax.training.monitor import make_observer
from ncjax.training.state import init_state
from ncjax.training.step import compile_chunk


def main() -> None:
    """Time both and print their ratio at the config's `observe_epochs`."""
    config, _ = config_and_workdir(start("train", sys.argv[1:]))
    run = prepare(config, load_dataset(config.data))
    state = init_state(run.spec, run.ensemble)
    observe = make_observer(run.spec, state, run.dataset, run.ensemble, run.images)
    chunk = compile_chunk(run.spec, state, run.images, run.ensemble)
    per_epoch, every = run.spec.steps_per_epoch, config.evaluate.observe_epochs
    steps, at = min(config.chunk_steps, per_epoch), 0
    step_secs: list[float] = []
    observe_secs: list[float] = []
    for _ in range(6):
        stop = put(np.int32(at + steps), NamedSharding(run.spec.mesh, REPLICATED))
        started = time.perf_counter()
        state, _ = chunk(state, run.images, run.ensemble, stop)
        jax.block_until_ready(state)
        step_secs.append((time.perf_counter() - started) / steps)
        at += steps
        started = time.perf_counter()
        jax.block_until_ready(observe(every, state))
        observe_secs.append(time.perf_counter() - started)
    step, once = statistics.median(step_secs[1:]), statistics.median(observe_secs[1:])
    share = once / (step * per_epoch * every)
    found = {"step_secs": step, "epoch_secs": step * per_epoch, "observe_secs": once, "every_epochs": every}
    print(json.dumps({"config": config.name, "members": len(run.members), **found, "share": round(share, 5)}))


if __name__ == "__main__":
    main()
