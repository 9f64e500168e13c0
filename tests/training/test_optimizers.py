# SPDX-License-Identifier: Apache-2.0
"""Optimizers take the steps of PyTorch's, with a learning rate that changes from step to step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ncjax.config import OptimConfig
from ncjax.errors import UserError
from ncjax.training.optimizers import find_optimizer

DECAY, RATES = 0.1, [0.1, 0.05, 0.2, 0.1, 0.01]
CASES = {
    "sgd": (OptimConfig(nesterov=False), lambda w: torch.optim.SGD(w, 1.0, 0.9, weight_decay=DECAY)),
    "nesterov": (OptimConfig(), lambda w: torch.optim.SGD(w, 1.0, 0.9, weight_decay=DECAY, nesterov=True)),
    "adamw": (
        OptimConfig(name="adamw", beta1=0.8, beta2=0.95),
        lambda w: torch.optim.AdamW(w, 1.0, (0.8, 0.95), weight_decay=DECAY),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_pytorch(case):
    config, make = CASES[case]
    curvature = np.linspace(0.1, 3, 6).astype(np.float32)
    weights = torch.nn.Parameter(torch.linspace(-1, 2, 6))
    theirs = make([weights])
    ours = {"w": jnp.linspace(-1, 2, 6)}
    state = find_optimizer(config)(jnp.asarray(0.1), jnp.asarray(DECAY)).init(ours)

    @jax.jit
    def step(ours, state, rate):
        optimizer = find_optimizer(config)(rate, jnp.asarray(DECAY))
        updates, state = optimizer.update({"w": curvature * ours["w"]}, state, ours)
        return optax.apply_updates(ours, updates), state

    for rate in RATES:
        theirs.param_groups[0]["lr"] = rate
        weights.grad = torch.from_numpy(curvature) * weights.detach()
        theirs.step()
        ours, state = step(ours, state, jnp.asarray(rate))
        np.testing.assert_allclose(ours["w"], weights.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_unknown_optimizer_is_named_with_those_that_are_known():
    with pytest.raises(UserError, match=r"^optim\.name is 'lion', but must be one of sgd, adamw$"):
        find_optimizer(dataclasses.replace(OptimConfig(), name="lion"))
