# SPDX-License-Identifier: Apache-2.0
"""What a look at collapse costs: `python docs/observe_cost.py CONFIG [--data.path FOLDER ...]` times epochs and looks.

A step is timed by chunks of `chunk_steps`, a look on `evaluate.observe_images`; both after compilation, median of five.
"""

import json
import statistics
import sys
import time

import jax
import numpy as np
from jax.sharding import NamedSharding

from ncjax.data import load_dataset
from ncjax.cli.parsing import base_config, parse
from ncjax.training.loop import prepare
from ncjax.distributed.mesh import EVERYWHERE, put
from ncjax.training.monitor import make_observer
from ncjax.training.step import compile_chunk, init_state


def main() -> None:
    """Time both and print their ratio at the config's `observe_epochs`."""
    name, base, rest = base_config("observe_cost", sys.argv[1:])

    def options(config=base):
        return config

    config = base if not rest else parse(name, options, [a.replace("--", "--config.", 1) for a in rest])
    run = prepare(config, load_dataset(config.data))
    observe = make_observer(run.spec, run.dataset, run.ensemble, run.images, len(run.members))
    state = init_state(run.spec, run.ensemble)
    chunk = compile_chunk(run.spec, state, run.images, run.ensemble)
    steps, per_epoch, every = config.chunk_steps, run.spec.steps_per_epoch, config.evaluate.observe_epochs
    steps = min(steps, per_epoch)
    step_secs, look_secs, at = [], [], 0
    for _ in range(6):
        started = time.perf_counter()
        state, _ = chunk(
            state, run.images, run.ensemble, put(np.int32(at + steps), NamedSharding(run.spec.mesh, EVERYWHERE))
        )
        jax.block_until_ready(state)
        step_secs.append((time.perf_counter() - started) / steps)
        at += steps
        started = time.perf_counter()
        observe(every, state)
        look_secs.append(time.perf_counter() - started)
    step, look = statistics.median(step_secs[1:]), statistics.median(look_secs[1:])
    share = look / (step * per_epoch * every)
    found = {"step_secs": step, "epoch_secs": step * per_epoch, "look_secs": look, "every_epochs": every}
    print(json.dumps({"config": config.name, "members": len(run.members), **found, "share": round(share, 5)}))


if __name__ == "__main__":
    main()
