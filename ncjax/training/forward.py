# SPDX-License-Identifier: Apache-2.0
"""The forward pass of every member in eval mode, and the loss and accuracy of its logits."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int32, PyTree, UInt8

from ncjax.distributed.mesh import DATA
from ncjax.errors import UserError
from ncjax.training.augmentation import normalise
from ncjax.training.losses import Loss, mask_logits
from ncjax.training.parallel import map_members
from ncjax.training.state import Spec, StepMetrics, TrainState, apply_network, arithmetic_of

LOGITS = "logits"
Layers = dict[str, Float[Array, "s n _"]]


def forward(
    spec: Spec,
    state: TrainState,
    pixels: UInt8[Array, "n h w ch"],
    mean: Float[Array, "ch"],
    std: Float[Array, "ch"],
    layers: tuple[str, ...] = ("features",),
) -> Layers:
    """Named tensors of every member in eval mode, on images as they are; batches of the training size.

    Args:
        spec: of the run.
        state: of its members.
        pixels: the images.
        mean: of the training pixels, in units of the full scale.
        std: the same.
        layers: names of tensors of the network.

    Returns:
        `[s n d]` of each of these layers, and `logits`.

    Raises:
        UserError: the network names no such layer.
    """
    size = spec.config.optim.batch
    count = pixels.shape[0]
    starts = jnp.arange(-(-count // size), dtype=jnp.int32) * size

    def one_batch(start: Array) -> Layers:
        rows = jnp.minimum(start + jnp.arange(size, dtype=jnp.int32), count - 1)
        return _apply(spec, state, pixels[rows], mean, std, layers)

    return {name: rows[:, :count] for name, rows in _joined(lax.map(one_batch, starts)).items()}


def forward_batches(
    spec: Spec,
    state: TrainState,
    batches: UInt8[Array, "k b h w ch"],
    mean: Float[Array, "ch"],
    std: Float[Array, "ch"],
    layers: tuple[str, ...] = ("features",),
) -> Layers:
    """`forward` on images that come in batches of the training size.

    Raises:
        UserError: the network names no such layer.
    """
    return _joined(lax.map(lambda batch: _apply(spec, state, batch, mean, std, layers), batches))


def _apply(
    spec: Spec, state: TrainState, batch: Array, mean: Array, std: Array, layers: tuple[str, ...]
) -> dict[str, Array]:
    """One batch: `[s b d]` of each layer."""
    images = normalise(lax.with_sharding_constraint(batch, NamedSharding(spec.mesh, DATA)), mean, std)
    weights = (state.members.params, state.members.batch_stats)
    with arithmetic_of(spec):
        return map_members(spec.mesh, partial(_member_outputs, spec, layers), weights, images, at_once=spec.at_once)


def _member_outputs(
    spec: Spec, layers: tuple[str, ...], weights: tuple[PyTree, PyTree], images: Array
) -> dict[str, Array]:
    outputs, _ = apply_network(spec, *weights, images, train=False, key=jax.random.key(0))
    unknown = [name for name in layers if name not in outputs]
    if unknown:
        known = ", ".join(outputs)
        raise UserError(f"network {spec.functions.network.name} has no layer {unknown[0]!r}; it has {known}")
    return {name: outputs[name] for name in (*layers, LOGITS)}


def _joined(batches: dict[str, Array]) -> dict[str, Array]:
    """Batches `[k s b d]` as `[s n d]`."""
    return {name: x.swapaxes(0, 1).reshape(x.shape[1], -1, x.shape[-1]) for name, x in batches.items()}


def mean_loss_and_accuracy(
    loss: Loss, logits: Float[Array, "s n c"], targets: Int32[Array, "s n"], class_mask: Bool[Array, "s c"]
) -> StepMetrics:
    """Mean loss and share of right answers of every member, over the classes that it has."""
    predicted = jax.vmap(mask_logits)(logits, class_mask).argmax(axis=-1)
    means = jax.vmap(loss)(logits, targets, class_mask).mean(axis=1)
    return StepMetrics(means, (predicted == targets).mean(axis=1, dtype=jnp.float32))
