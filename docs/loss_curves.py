# SPDX-License-Identifier: Apache-2.0
"""How far the losses of 20 steps lie apart: ours, PyTorch in float32 and in float64, from the same weights and batches.

PYTHONPATH=. python docs/loss_curves.py FOLDER, with CIFAR-10 (JPEG) in FOLDER and the settings of coarse_cifar10_cpu.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import torch

from ncjax.config import load_config
from ncjax.data import load_dataset
from ncjax.torch_port.step import TorchOptions
from ncjax.torch_port.train import network_of
from ncjax.training.loop import prepare
from ncjax.training.step import init_state
from tests.torch_port.test_same_training import STEPS, one_step, torch_losses

config = load_config(Path(__file__).parents[1] / "configs" / "coarse_cifar10_cpu.py")
config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=sys.argv[1]))
run = prepare(config, load_dataset(config.data))
state = init_state(run.spec, run.ensemble)
networks = {str(dtype): network_of(run, state, 0).to(dtype) for dtype in (torch.float32, torch.float64)}
step, ours = jax.jit(one_step, static_argnums=0), []
for _ in range(STEPS):
    state, seen = step(run.spec, state, run.images, run.ensemble)
    ours.append(float(seen.loss[0]))
curves = {"ncjax": np.array(ours)}
for name, network in networks.items():
    curves[name] = np.array(torch_losses(run, 0, network, TorchOptions(channels_last=True)))
for one, other in (("ncjax", "torch.float32"), ("ncjax", "torch.float64"), ("torch.float32", "torch.float64")):
    apart = np.abs(curves[one] - curves[other])
    print(f"{one} to {other}: first step {apart[0]:.1e}, largest of {STEPS} steps {apart.max():.3f}")
