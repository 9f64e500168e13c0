# SPDX-License-Identifier: Apache-2.0
"""Images per second of a training step, ours and PyTorch's."""

import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ncjax.bench.interleave import Peer
from ncjax.config import Config
from ncjax.torch_port.step import TorchOptions

MEASURED_SECS = 1.0  # of one call of a timer, at least


def torch_options(config: Config) -> tuple[TorchOptions, ...]:
    """Every way of running PyTorch that may be its fastest; in bfloat16 too where the config says float32."""
    layouts = (False,) if config.model.name == "mlp" else (False, True)
    dtypes = (True,) if config.optim.dtype == "bfloat16" else (False, True)
    return tuple(
        TorchOptions(compiled=compiled, channels_last=channels_last, bfloat16=bfloat16)
        for bfloat16 in dtypes
        for compiled in (False, True)
        for channels_last in layouts
    )


def training_peers(config: Config, batches: Path) -> dict[str, Peer]:
    """ncjax, and PyTorch with each of `torch_options` by its text; `batches` is a file of `save_batches`."""
    libraries = ("ncjax.torch_port.networks",)
    theirs = {str(o): Peer(partial(torch_timer, config, batches, o), libraries) for o in torch_options(config)}
    return {"ncjax": Peer(partial(jax_timer, config), ("ncjax.train.loop",))} | theirs


def save_batches(config: Config, path: Path) -> None:
    """Write the first batches of member 0, so that PyTorch is measured without what makes them."""
    from ncjax.data import load_dataset
    from ncjax.torch_port.train import epoch_batches
    from ncjax.train.loop import prepare

    run = prepare(config, load_dataset(config.data))
    _, images, targets = next(epoch_batches(run, 0, 0))
    np.savez(path, images=images.cpu().numpy(), targets=targets.cpu().numpy(), classes=run.spec.classes)


def jax_timer(config: Config) -> Callable[[], float]:
    """Images per second of all members together: augmentation, step and metrics in one compiled chunk."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding

    from ncjax.data import load_dataset
    from ncjax.train.loop import prepare
    from ncjax.train.mesh import EVERYWHERE
    from ncjax.train.step import compile_chunk, init_state

    run = prepare(config, load_dataset(config.data))
    state = init_state(run.spec, run.ensemble)
    chunk = compile_chunk(run.spec, state, run.images, run.ensemble)

    def advance(steps: int) -> None:
        nonlocal state
        stop = jax.device_put(jnp.asarray(state.step + steps, jnp.int32), NamedSharding(run.spec.mesh, EVERYWHERE))
        state, seen = chunk(state, run.images, run.ensemble, stop)
        jax.block_until_ready(seen)

    return _timer(advance, config.chunk_steps, config.optim.batch * len(run.members))


def torch_timer(config: Config, batches: Path, options: TorchOptions) -> Callable[[], float]:
    """Images per second of one member: the step on batches that lie ready in its memory."""
    import torch

    from ncjax.torch_port.networks import make_network
    from ncjax.torch_port.step import make_step, synchronise, to_images, torch_device

    with np.load(batches) as stored:
        images = [to_images(torch.from_numpy(batch), options) for batch in stored["images"]]
        targets, classes = torch.from_numpy(stored["targets"]).to(torch_device()), int(stored["classes"])
    _, channels, height, width = images[0].shape
    network = make_network(config.model, (height, width, channels), classes)
    step = make_step(network, config.optim, config.optim.weight_decay[0], classes, options)

    def advance(steps: int) -> None:
        for place in range(steps):
            step(images[place % len(images)], targets[place % len(images)], 0.01)
        synchronise()

    return _timer(advance, len(images), config.optim.batch)


def _timer(advance: Callable[[int], None], most: int, images_per_step: int) -> Callable[[], float]:
    """Times as many steps at a go as fit the time, and `most` at most, until the time is over."""
    advance(1)
    started = time.perf_counter()
    advance(1)
    at_once = min(most, max(1, math.ceil(MEASURED_SECS / (time.perf_counter() - started))))

    def measure() -> float:
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < MEASURED_SECS:
            advance(at_once)
            steps += at_once
        return steps * images_per_step / (time.perf_counter() - started)

    return measure
