# SPDX-License-Identifier: Apache-2.0
"""The training step in PyTorch, in its fast forms; of JAX it knows nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ncjax.config import OptimConfig

Step = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """How PyTorch computes what the config says."""

    channels_last: bool = False
    compiled: bool = False
    bfloat16: bool = False  # autocast of the forward and backward pass

    def __str__(self) -> str:
        parts = ["compile" if self.compiled else "eager"]
        parts += ["channels_last"] * self.channels_last + ["bfloat16"] * self.bfloat16
        return ", ".join(parts)


def torch_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_step(network: nn.Module, optim: OptimConfig, weight_decay: float, classes: int, options: TorchOptions) -> Step:
    """A function of images `[b ch h w]`, targets `[b]` and learning rate: one step of SGD on the mean cross-entropy.

    It changes `network` in place, over the first `classes` outputs alone, and returns loss (nats) and accuracy. The
    rate multiplies the momentum buffer and decay is added to the gradient, as in `ncjax.training.step`.
    """
    device = torch_device()
    network.train().to(device)
    if options.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=1.0,
        momentum=optim.momentum,
        nesterov=optim.nesterov and optim.momentum > 0,
        weight_decay=weight_decay,
        fused=True,
    )
    forward = torch.compile(network) if options.compiled else network

    def step(images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16):
            logits = forward(images)[:, :classes].float()
            loss = functional.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        return loss.detach(), (logits.detach().argmax(1) == targets).float().mean()

    return step


def to_images(batch: Tensor, options: TorchOptions) -> Tensor:
    """`[b h w ch]` to `[b ch h w]` on the device, laid out as the options say."""
    images = batch.to(torch_device()).permute(0, 3, 1, 2)
    return images if options.channels_last else images.contiguous()


def synchronize() -> None:
    """Wait until the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
