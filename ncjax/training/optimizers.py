# SPDX-License-Identifier: Apache-2.0
"""Optimizers, and their table."""

from collections.abc import Callable

import optax
from jaxtyping import Array, Float

from ncjax.config import OptimConfig
from ncjax.tables import find_named

Optimizer = Callable[[Float[Array, ""], Float[Array, ""]], optax.GradientTransformation]  # of (learning rate, decay)


def sgd(config: OptimConfig) -> Optimizer:
    """SGD as PyTorch defines it: decay is added to the gradient, the rate multiplies the momentum buffer.

    `v <- m v + g + wd w`; then `w <- w - lr v`, or with Nesterov's momentum `w <- w - lr (g + wd w + m v)`.
    """

    def optimizer(learning_rate: Array, weight_decay: Array) -> optax.GradientTransformation:
        step = optax.sgd(learning_rate, momentum=config.momentum, nesterov=config.nesterov)
        return optax.chain(optax.add_decayed_weights(weight_decay), step)

    return optimizer


def adamw(config: OptimConfig) -> Optimizer:
    """Adam with decoupled weight decay, as PyTorch defines it, with epsilon 1e-8.

    `w <- w - lr (m' / (sqrt(v') + 1e-8) + wd w)` with the bias-corrected means `m'` and `v'` of the gradient and of its
    square. Source: Loshchilov and Hutter 2019.
    """

    def optimizer(learning_rate: Array, weight_decay: Array) -> optax.GradientTransformation:
        return optax.adamw(learning_rate, config.beta1, config.beta2, weight_decay=weight_decay)

    return optimizer


OPTIMIZERS: dict[str, Callable[[OptimConfig], Optimizer]] = {"sgd": sgd, "adamw": adamw}


def find_optimizer(config: OptimConfig) -> Optimizer:
    """The optimizer that a config names.

    Raises:
        UserError: there is none of this name.
    """
    return find_named(OPTIMIZERS, config.name, "optim.name")(config)
