# SPDX-License-Identifier: Apache-2.0
"""Images per second of PyTorch's training step. It imports PyTorch: import it inside the function that needs it."""

from functools import partial
from pathlib import Path

import numpy as np

from ncjax.bench.interleave import Peer, Timer
from ncjax.bench.training import step_timer
from ncjax.config import Config, TorchMode
from ncjax.models import find_network
from ncjax.torch_port.networks import make_network
from ncjax.torch_port.step import TorchOptions, make_step, synchronize, to_images, torch_device


def torch_options(config: Config, modes: tuple[TorchMode, ...] = ()) -> tuple[TorchOptions, ...]:
    """Every way of running PyTorch that may be its fastest; in bfloat16 too where the config says something else.

    Args:
        config: of the training.
        modes: of compilation; none: all, but for those that differ on GPUs alone.
    """
    layouts = (False, True) if find_network(config.model).spatial else (False,)
    every: tuple[TorchMode, ...] = ("eager", "default")
    if torch_device().type == "cuda":
        every += ("reduce-overhead", "max-autotune")
    return tuple(
        TorchOptions(mode=mode, channels_last=channels_last, precision=precision)
        for precision in dict.fromkeys((config.optim.precision, "bfloat16"))
        for mode in modes or every
        for channels_last in layouts
    )


def torch_peers(config: Config, batches: Path, options: tuple[TorchOptions, ...]) -> dict[str, Peer]:
    """One member in PyTorch in each of these ways, by their text; `batches` is a file of `save_batches`."""
    libraries = ("ncjax.torch_port.networks",)
    return {str(o): Peer(partial(torch_timer, config, batches, o), libraries) for o in options}


def save_batches(config: Config, path: Path) -> None:
    """Write the first batches of member 0, so that PyTorch is measured without what makes them."""
    from ncjax.data import load_dataset
    from ncjax.torch_port.train import epoch_batches
    from ncjax.training.loop import prepare

    run = prepare(config, load_dataset(config.data))
    _, images, targets = next(epoch_batches(run, 0, 0))
    np.savez(path, images=images.cpu().numpy(), targets=targets.cpu().numpy(), classes=run.spec.classes)


def torch_timer(config: Config, batches: Path, options: TorchOptions) -> Timer:
    """Images per second of one member: the step on batches that lie ready in its memory."""
    import torch

    with np.load(batches) as stored:
        images = [to_images(torch.from_numpy(batch), options) for batch in stored["images"]]
        targets, classes = torch.from_numpy(stored["targets"]).to(torch_device()), int(stored["classes"])
    _, channels, height, width = images[0].shape
    network = make_network(config.model, (height, width, channels), classes)
    step = make_step(network, config.optim, config.optim.weight_decay[0], classes, options, config.loss)

    def advance(steps: int) -> None:
        for i in range(steps):
            step(images[i % len(images)], targets[i % len(images)], 0.01)
        synchronize()

    return step_timer(advance, len(images), config.optim.batch)
