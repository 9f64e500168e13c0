# SPDX-License-Identifier: Apache-2.0
"""The synthetic setting's descent in PyTorch: batched over seeds in three ways, and a loop over the seeds."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ncjax.bench.interleave import Timer
from ncjax.theory.config import TheoryConfig, settings_of

if TYPE_CHECKING:
    from torch import Tensor

LOOP_SEEDS = 32  # of the loop over seeds, whose rate does not depend on their number
WAYS = (
    "PyTorch bmm, autograd",
    "PyTorch bmm, gradient by hand",
    "PyTorch torch.func.vmap",
    "PyTorch loop over seeds",
)


def torch_timer(config: TheoryConfig, way: str, steps: int) -> Timer:
    """Run-steps per second of the first layer's full-batch descent on the logistic loss."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seeds = min(config.seeds, LOOP_SEEDS) if way.endswith("loop over seeds") else config.seeds
    (n,), (d,), (m,) = config.mixture.train, config.mixture.dimension, config.network.width
    (settings,) = settings_of(config)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(seeds, n, d, generator=generator).to(device)
    start = (settings.init_scale * torch.randn(seeds, d, m, generator=generator)).to(device)
    target = torch.where(torch.arange(n) < n // 2, 1.0, -1.0).to(device)
    sign = torch.where(torch.arange(m) % 2 == 0, 1.0, -1.0).to(device) / m
    advance = _advance(way, inputs, target, sign, settings.lr * m)

    def measure() -> float:
        weights, started = start.clone(), time.perf_counter()
        for _ in range(steps):
            weights = advance(weights)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return seeds * steps / (time.perf_counter() - started)

    return measure


def _advance(
    way: str, inputs: "Tensor", target: "Tensor", sign: "Tensor", speed: float
) -> "Callable[[Tensor], Tensor]":
    """One step of all seeds, `[s d m]` to `[s d m]`."""
    import torch

    softplus = torch.nn.functional.softplus

    def loss(weights: "Tensor", examples: "Tensor") -> "Tensor":
        return softplus(-target * (torch.relu(examples @ weights) @ sign)).mean(dim=-1)

    def by_autograd(weights: "Tensor", examples: "Tensor" = inputs) -> "Tensor":
        weights = weights.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(weights, examples).sum(), weights)
        return weights.detach() - speed * gradient

    transposed = inputs.transpose(1, 2).contiguous()

    def by_hand(weights: "Tensor") -> "Tensor":
        with torch.no_grad():
            hidden = torch.bmm(inputs, weights)
            margin = target * (torch.relu(hidden) @ sign)
            error = -target * torch.sigmoid(-margin) / target.numel()
            pulled = (error[..., None] * sign).masked_fill_(hidden <= 0, 0.0)
            return torch.baddbmm(weights, transposed, pulled, alpha=-speed)

    gradients = torch.func.vmap(torch.func.grad(loss))

    def by_vmap(weights: "Tensor") -> "Tensor":
        return weights - speed * gradients(weights, inputs)

    def by_loop(weights: "Tensor") -> "Tensor":
        for seed in range(len(weights)):
            weights[seed] = by_autograd(weights[seed], inputs[seed])
        return weights

    return dict(zip(WAYS, (by_autograd, by_hand, by_vmap, by_loop), strict=True))[way]
