# SPDX-License-Identifier: Apache-2.0
"""Images per second of our training step."""

import math
import os
import time
from collections.abc import Callable
from functools import partial

from ncjax.bench.interleave import Peer, Timer
from ncjax.config import Config

MEASURED_SECS = 4.0  # of one call of a timer, at least


def leave_memory() -> None:
    """Leave what is not needed of a device's memory to the other processes that are measured."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def our_peer(config: Config) -> Peer:
    """All members of a config at once."""
    return Peer(partial(jax_timer, config), ("ncjax.training.loop",))


def jax_timer(config: Config) -> Timer:
    """Images per second of all members together: augmentation, step and metrics in one compiled chunk."""
    leave_memory()
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding

    from ncjax.data import load_dataset
    from ncjax.distributed.mesh import REPLICATED
    from ncjax.training.loop import prepare
    from ncjax.training.lowerings import choose_lowerings
    from ncjax.training.state import init_state
    from ncjax.training.step import compile_chunk

    run = choose_lowerings(prepare(config, load_dataset(config.data)), None)
    state = init_state(run.spec, run.ensemble)
    chunk = compile_chunk(run.spec, state, run.images, run.ensemble)

    def advance(steps: int) -> None:
        nonlocal state
        stop = jax.device_put(jnp.asarray(state.step + steps, jnp.int32), NamedSharding(run.spec.mesh, REPLICATED))
        state, totals = chunk(state, run.images, run.ensemble, stop)
        jax.block_until_ready(totals)

    return step_timer(advance, config.chunk_steps, config.optim.batch * len(run.members))


def step_timer(advance: Callable[[int], None], most: int, images_per_step: int) -> Timer:
    """The timer of a training: `advance(n)` takes `n` steps and waits for them.

    It takes as many steps at a go as fit the time, and `most` at most, until the time is over. A first go is not
    measured: after a pause, in which the others are measured, it can be slower than the next.
    """
    advance(1)
    started = time.perf_counter()
    advance(1)
    at_once = min(most, max(1, math.ceil(MEASURED_SECS / (time.perf_counter() - started))))

    def measure() -> float:
        advance(at_once)
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < MEASURED_SECS:
            advance(at_once)
            steps += at_once
        return steps * images_per_step / (time.perf_counter() - started)

    return measure
