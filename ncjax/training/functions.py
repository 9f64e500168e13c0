# SPDX-License-Identifier: Apache-2.0
"""The functions that a run computes with: those that the config names, or functions of the caller's own."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from ncjax.config import Config, LossConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.models import Network, find_network
from ncjax.ops.precision import compute_dtype
from ncjax.tables import OWN
from ncjax.training.augmentation import Augment, find_augmentation
from ncjax.training.losses import Loss, find_loss
from ncjax.training.optimizers import Optimizer, find_optimizer
from ncjax.training.schedules import Schedule, find_schedule


class OwnFunctions(NamedTuple):
    """What a caller passes in place of names of the config; None: what the config names."""

    network: Network | None = None
    loss: Loss | None = None
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    augment: Augment | None = None


NO_OWN = OwnFunctions()


@dataclass(frozen=True, kw_only=True)
class Functions:
    """All of them; the same objects for the same config, so that programs are compiled once."""

    network: Network
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment | None


def find_functions(config: Config, own: OwnFunctions) -> Functions:
    """The functions of a run.

    Raises:
        UserError: a name is unknown, or is that of a function that was not passed, or one that was passed is none.
    """
    _check(own)
    precision = config.optim.precision
    if own.network is not None and precision == "bfloat16":
        raise UserError(
            "optim.precision must be float32 or tf32 for a network of your own, which chooses its types itself"
        )
    return Functions(
        network=own.network or find_network(config.model, compute_dtype(precision)),
        loss=own.loss or _loss(config.loss),
        optimizer=own.optimizer or _optimizer(config.optim),
        schedule=own.schedule or find_schedule(config.optim.schedule),
        augment=own.augment or find_augmentation(config.data.augment),
    )


@cache
def _loss(config: LossConfig) -> Loss:
    return find_loss(config)


@cache
def _optimizer(config: OptimConfig) -> Optimizer:
    return find_optimizer(config)


def name_functions(config: Config, own: OwnFunctions) -> Config:
    """The config with `own:NAME` in place of each name that a function of the caller's own stands for.

    So config.json and results say so, and a work directory refuses to go on with another one.
    """
    _check(own)
    model = config.model if own.network is None else dataclasses.replace(config.model, name=OWN + own.network.name)
    loss = config.loss if own.loss is None else dataclasses.replace(config.loss, name=_name(own.loss))
    data = config.data if own.augment is None else dataclasses.replace(config.data, augment=_name(own.augment))
    optim = config.optim
    if own.optimizer is not None:
        optim = dataclasses.replace(optim, name=_name(own.optimizer))
    if own.schedule is not None:
        optim = dataclasses.replace(optim, schedule=_name(own.schedule))
    return dataclasses.replace(config, model=model, loss=loss, data=data, optim=optim)


def _name(function: Any) -> str:
    """The name of a function; of a partial one, that of what it calls."""
    inner = getattr(function, "func", function)
    return OWN + getattr(inner, "__qualname__", type(inner).__name__)


def _check(own: OwnFunctions) -> None:
    if own.network is not None and not isinstance(own.network, Network):
        found = getattr(own.network, "__name__", type(own.network).__name__)
        raise UserError(
            f"network is {found}, but must be ncjax.Network(init=..., apply=...), ncjax.from_nnx(factory) or "
            "ncjax.from_linen(module)"
        )
    for name, function in own._asdict().items():
        if name != "network" and function is not None and not callable(function):
            raise UserError(f"{name} is {function!r}, but must be a function; names are set in the config")
