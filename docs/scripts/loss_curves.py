# SPDX-License-Identifier: Apache-2.0
"""How far the losses of 20 steps lie apart: ours, PyTorch in float32 and in float64, from the same weights and batches.

python docs/scripts/loss_curves.py FOLDER, with CIFAR-10 (JPEG) in FOLDER and the settings of coarse_cifar10_cpu.
"""

import dataclasses
import sys
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import torch
from torch import nn

from ncjax.config import load_config
from ncjax.data import load_dataset
from ncjax.torch_port.step import TorchOptions, make_step, to_images
from ncjax.torch_port.train import epoch_batches, network_of, schedule_factors
from ncjax.training.batch import make_batch
from ncjax.training.loop import PreparedRun, prepare
from ncjax.training.members import Ensemble, Images, example_order
from ncjax.training.state import Spec, StepMetrics, TrainState, init_state
from ncjax.training.step import train_step

CONFIG = Path(__file__).parents[2] / "configs" / "coarse_cifar10_cpu.py"
STEPS = 20
OPTIONS = TorchOptions(channels_last=True)


def main() -> None:
    """Train on both sides, compare."""
    config = load_config(CONFIG)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, source="image_folder", path=sys.argv[1]))
    run = prepare(config, load_dataset(config.data))
    state = init_state(run.spec, run.ensemble)
    networks = {str(dtype): network_of(run, state, 0).to(dtype) for dtype in (torch.float32, torch.float64)}
    curves = {"ncjax": our_losses(run, state)}
    curves |= {name: torch_losses(run, network) for name, network in networks.items()}
    for one, other in (("ncjax", "torch.float32"), ("ncjax", "torch.float64"), ("torch.float32", "torch.float64")):
        apart = np.abs(curves[one] - curves[other])
        print(f"{one} to {other}: first step {apart[0]:.1e}, largest of {STEPS} steps {apart.max():.3f}")


def our_losses(run: PreparedRun, state: TrainState) -> np.ndarray:
    """Losses of member 0 before each of the first steps."""
    step, losses = jax.jit(one_step, static_argnums=0), []
    for _ in range(STEPS):
        state, metrics = step(run.spec, state, run.images, run.ensemble)
        losses.append(float(metrics.loss[0]))
    return np.array(losses)


def one_step(spec: Spec, state: TrainState, images: Images, ensemble: Ensemble) -> tuple[TrainState, StepMetrics]:
    """The next step of every member."""
    order = example_order(ensemble.seed, state.step // spec.steps_per_epoch, images.train.shape[0])
    return train_step(spec, state, make_batch(spec, images, ensemble, order, state.step), ensemble)


def torch_losses(run: PreparedRun, network: nn.Module) -> np.ndarray:
    """The same of a PyTorch network, in its own number type."""
    member, dtype = run.members[0], next(network.parameters()).dtype
    rates = member.lr * schedule_factors(run)
    step = make_step(network, run.config.optim, member.weight_decay, member.label_map.classes, OPTIONS, run.config.loss)
    losses = (
        float(step(to_images(x, OPTIONS).to(dtype), y, float(rates[first + i]))[0])
        for first, images, targets in epoch_batches(run, 0, 0)
        for i, (x, y) in enumerate(zip(images, targets, strict=True))
    )
    return np.array(list(islice(losses, STEPS)))


if __name__ == "__main__":
    main()
