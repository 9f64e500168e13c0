# SPDX-License-Identifier: Apache-2.0
"""Images per second that streaming delivers to the devices, compared with what the training step consumes."""

import dataclasses
import time
from contextlib import closing
from functools import partial

import numpy as np

from ncjax.bench.interleave import Peer, Timer, interleave
from ncjax.bench.loaders import loader_peers
from ncjax.bench.result import BenchResult, Pair, bench_result, row_of
from ncjax.bench.speed import UNIT, title
from ncjax.bench.training import MEASURED_SECS, leave_memory, our_peer, step_timer
from ncjax.config import Config, to_dict

INPUT, STEP, WHOLE = "input alone", "training step, data set on the device", "training, streamed"
ENDLESS = 10_000  # epochs: no measurement meets the end of a run


def bench_input(config: Config, command: str, *, rounds: int) -> BenchResult:
    """The streamed input of all members of a config alone; the step on resident images; and both together.

    Raises:
        UserError: the config does not fit its data, or Grain is not installed.
    """
    from ncjax.data import load_dataset
    from ncjax.training.members import list_members

    leave_memory()
    resident, streamed = (_with(config, streamed=flag) for flag in (False, True))
    members = list_members(config, load_dataset(streamed.data))
    inputs = Peer(partial(input_timer, streamed), ("ncjax.training.loop", "grain"))
    whole = Peer(partial(streamed_timer, streamed), ("ncjax.training.loop", "grain"))
    loaders, notes = loader_peers(streamed, len(members) / len({member.seed for member in members}))
    peers = {INPUT: inputs, **loaders, STEP: our_peer(resident), WHOLE: whole}
    rows = [row_of(name, UNIT, found) for name, found in interleave(peers, rounds=rounds).items()]
    pairs = [(INPUT, STEP), (WHOLE, STEP), *((INPUT, name) for name in loaders)]
    compared = [Pair(title(config, len(members)), *pair) for pair in pairs]
    notes.append("A measurement of the input alone starts with nothing read; the files may lie in the system's cache.")
    return bench_result(command, rows, compared, notes, to_dict(config))


def input_timer(config: Config) -> Timer:
    """Images per second of all members that reach the devices, decoded, in chunks of the run."""
    leave_memory()
    import jax

    from ncjax.data import load_dataset
    from ncjax.training.loop import prepare
    from ncjax.training.streaming import chunks

    run = prepare(config, load_dataset(config.data))
    assert run.feed is not None
    feed, at = run.feed, 0

    def advance(steps: int) -> None:
        nonlocal at
        with closing(chunks(feed, at, at + steps)) as streamed:
            for chunk in streamed:
                jax.block_until_ready(chunk.pixels)
        at += steps

    return step_timer(advance, 4 * config.chunk_steps, config.optim.batch * len(run.members))


def streamed_timer(config: Config) -> Timer:
    """Images per second of a streamed training of all members, in whole chunks of the run."""
    leave_memory()
    import jax
    from jax.sharding import NamedSharding

    from ncjax.data import load_dataset
    from ncjax.distributed.mesh import REPLICATED
    from ncjax.distributed.sharding import put
    from ncjax.training.loop import chunk_images, prepare
    from ncjax.training.state import init_state
    from ncjax.training.step import compile_chunk

    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=ENDLESS))
    run = prepare(config, load_dataset(config.data))
    state = init_state(run.spec, run.ensemble)
    chunk, images = compile_chunk(run.spec, state, run.images, run.ensemble), chunk_images(run, 0)

    def measure() -> float:
        nonlocal state
        first, started = int(state.step), time.perf_counter()
        while time.perf_counter() - started < MEASURED_SECS:
            epoch_end = (int(state.step) // run.spec.steps_per_epoch + 1) * run.spec.steps_per_epoch
            stop = put(np.int32(epoch_end), NamedSharding(run.spec.mesh, REPLICATED))
            state, totals = chunk(state, next(images), run.ensemble, stop)
            jax.block_until_ready(totals)
        trained = (int(state.step) - first) * config.optim.batch * len(run.members)
        return trained / (time.perf_counter() - started)

    return measure


def _with(config: Config, *, streamed: bool) -> Config:
    data = dataclasses.replace(config.data, streamed=streamed, crop_scale=config.data.crop_scale if streamed else 0.0)
    return dataclasses.replace(config, data=data)
