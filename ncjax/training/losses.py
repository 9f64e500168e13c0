# SPDX-License-Identifier: Apache-2.0
"""Losses of one example, and their table."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32

from ncjax.config import LossConfig
from ncjax.tables import find_named

Loss = Callable[[Float[Array, "b c"], Int32[Array, "b"], Bool[Array, "c"]], Float[Array, "b"]]
LOWEST = -1e9  # logit of a class that a member has not


def cross_entropy(
    logits: Float[Array, "b c"],
    targets: Int32[Array, "b"],
    class_mask: Bool[Array, "c"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, "b"]:
    """`-sum_c y_c log softmax(z)_c` over the `C` classes of a member, in nats.

    Args:
        logits: `z`.
        targets: the true class `t`.
        class_mask: the classes that the member has.
        label_smoothing: `e` in `y_c = (1 - e) [c = t] + e / C`; source: Szegedy et al. 2016, as in PyTorch.

    Example:
        >>> z, y = jnp.zeros((1, 3)), jnp.asarray([0], jnp.int32)
        >>> float(cross_entropy(z, y, jnp.asarray([True, True, False]))[0])  # log 2
        0.693147...
    """
    masked = mask_logits(logits, class_mask)
    loss = optax.softmax_cross_entropy_with_integer_labels(masked, targets)
    if not label_smoothing:
        return loss
    surprise = jnp.where(class_mask[None, :], -jax.nn.log_softmax(masked), 0).sum(axis=1) / class_mask.sum()
    return (1 - label_smoothing) * loss + label_smoothing * surprise


def squared_error(
    logits: Float[Array, "b c"],
    targets: Int32[Array, "b"],
    class_mask: Bool[Array, "c"],
    *,
    true_weight: float = 1.0,
    true_value: float = 1.0,
) -> Float[Array, "b"]:
    """`(k (z_t - M)^2 + sum_{c != t} z_c^2) / C` over the `C` classes of a member.

    Source: Hui and Belkin 2021, with `k` = 15 and `M` = 30 for 1,000 classes, and 1 for few. With 1 it is `2 / C` times
    the `|z - y|^2 / 2` of Han, Papyan and Donoho 2022: a learning rate `C / 2` times theirs takes the same steps.

    Args:
        logits: `z`.
        targets: the true class `t`.
        class_mask: the classes that the member has.
        true_weight: `k`.
        true_value: `M`.

    Example:
        >>> z, y = jnp.asarray([[1.0, 2.0, 5.0]]), jnp.asarray([0], jnp.int32)
        >>> float(squared_error(z, y, jnp.asarray([True, True, False]))[0])
        2.0
    """
    is_true = jnp.arange(logits.shape[1])[None, :] == targets[:, None]
    error = jnp.where(is_true, true_weight * (logits - true_value) ** 2, logits**2)
    return jnp.where(class_mask[None, :], error, 0).sum(axis=1) / class_mask.sum()


LOSSES: dict[str, Callable[[LossConfig], Loss]] = {
    "cross_entropy": lambda config: partial(cross_entropy, label_smoothing=config.label_smoothing),
    "squared_error": lambda config: partial(
        squared_error, true_weight=config.true_weight, true_value=config.true_value
    ),
}


def find_loss(config: LossConfig) -> Loss:
    """The loss that a config names.

    Raises:
        UserError: there is none of this name.
    """
    return find_named(LOSSES, config.name, "loss.name")(config)


def mask_logits(logits: Float[Array, "b c"], class_mask: Bool[Array, "c"]) -> Float[Array, "b c"]:
    """Logits with those of the classes that a member has not so low that they are never the largest."""
    return jnp.where(class_mask[None, :], logits, LOWEST)
