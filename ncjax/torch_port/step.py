# SPDX-License-Identifier: Apache-2.0
"""The training step in PyTorch, in its fast forms; of JAX it knows nothing."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ncjax.config import LossConfig, OptimConfig, Precision, TorchMode
from ncjax.errors import UserError
from ncjax.typed_json import structure

Loss = Callable[[Tensor, Tensor], Tensor]  # of logits [b c] and targets [b], the mean over the batch
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")  # modes that use them
Step = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """How PyTorch computes what the config says.

    Attributes:
        channels_last: the layout of images and activations.
        mode: eager, or a mode of `torch.compile`; reduce-overhead and max-autotune use CUDA graphs on GPUs.
        precision: bfloat16 by autocast of the forward and backward pass; tf32 by PyTorch's switches for products and
            convolutions, which float32 turns off.
    """

    channels_last: bool = False
    mode: TorchMode = "eager"
    precision: Precision = "float32"

    def __str__(self) -> str:
        parts = ["eager" if self.mode == "eager" else f"compile {self.mode}".removesuffix(" default")]
        parts += ["channels_last"] * self.channels_last + [self.precision] * (self.precision != "float32")
        return ", ".join(parts)


def read_options(content: Mapping[str, Any], where: str) -> TorchOptions:
    """Options from a file, also one of ncjax 0.1, which had `compiled` for a mode and `bfloat16` for a precision.

    Raises:
        UserError: a field is unknown or not of its type; the message begins with `where`.
    """
    now = dict(content)
    for older, name, meaning in (("compiled", "mode", "default"), ("bfloat16", "precision", "bfloat16")):
        if now.pop(older, False) is True:
            now[name] = meaning
    return structure(TorchOptions, now, where)


def set_precision(precision: Precision) -> None:
    """Set what float32 products and convolutions of this process are on a GPU: TF32, or exact."""
    tf32 = precision == "tf32"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*TF32.*")  # newer releases have other names for the same switches
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32


def torch_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_loss(config: LossConfig) -> Loss:
    """The loss of a config, over all classes, as a mean over the batch.

    Raises:
        UserError: it has no PyTorch twin.
    """

    def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)

    def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
        true = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
        scale = 1 + (config.true_weight**0.5 - 1) * true
        return functional.mse_loss(scale * logits, scale * config.true_value * true)

    losses: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}
    if config.name not in losses:
        raise UserError(f"loss.name is {config.name!r}, but losses with a PyTorch twin are {', '.join(losses)}")
    return losses[config.name]


def make_optimizer(network: nn.Module, config: OptimConfig, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of a config, at a learning rate of 1, which each step replaces.

    Raises:
        UserError: it has no PyTorch twin.
    """
    weights = network.parameters()
    if config.name == "sgd":
        nesterov, momentum = config.nesterov and config.momentum > 0, config.momentum
        return torch.optim.SGD(
            weights, lr=1.0, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True
        )
    if config.name == "adamw":
        betas = (config.beta1, config.beta2)
        return torch.optim.AdamW(weights, lr=1.0, betas=betas, weight_decay=weight_decay, fused=True)
    raise UserError(f"optim.name is {config.name!r}, but optimizers with a PyTorch twin are sgd, adamw")


def make_step(
    network: nn.Module,
    optim: OptimConfig,
    weight_decay: float,
    classes: int,
    options: TorchOptions,
    loss: LossConfig | None = None,
) -> Step:
    """A function of images `[b ch h w]`, targets `[b]` and learning rate: one step of the optimizer on the mean loss.

    It changes `network` in place, over the first `classes` outputs alone, and returns loss and accuracy. Where no loss
    is chosen, it is the default. The precision is set for the whole process.

    Raises:
        UserError: the loss or the optimizer has no PyTorch twin.
    """
    device = torch_device()
    set_precision(options.precision)
    network.train().to(device)
    if options.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, loss_of = make_optimizer(network, optim, weight_decay), make_loss(loss or LossConfig())
    forward = network if options.mode == "eager" else torch.compile(network, mode=options.mode)

    def step(images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        if options.mode in CUDA_GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            logits = forward(images)[:, :classes].float()
            mean_loss = loss_of(logits, targets)
        mean_loss.backward()
        optimizer.step()
        return mean_loss.detach(), (logits.detach().argmax(1) == targets).float().mean()

    return step


def to_images(batch: Tensor, options: TorchOptions) -> Tensor:
    """`[b h w ch]` to `[b ch h w]` on the device, laid out as the options say."""
    images = batch.to(torch_device()).permute(0, 3, 1, 2)
    return images if options.channels_last else images.contiguous()


def synchronize() -> None:
    """Wait until the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
