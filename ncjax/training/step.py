# SPDX-License-Identifier: Apache-2.0
"""The training step of an ensemble, and the chunk of steps that is compiled."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int32, PyTree

from ncjax.distributed.mesh import MEMBER, REPLICATED
from ncjax.distributed.sharding import put
from ncjax.errors import UserError
from ncjax.ops.xla import compiler_options
from ncjax.training.batch import Batch, make_batch
from ncjax.training.losses import mask_logits
from ncjax.training.members import Ensemble, Images, Stream, example_order, step_key
from ncjax.training.parallel import map_members
from ncjax.training.state import (
    MemberState,
    Spec,
    StepMetrics,
    TrainState,
    apply_network,
    arithmetic_of,
    state_sharding,
)

ACTIVATION = 2**18  # values: 1 MiB in float32


class _MemberInputs(NamedTuple):
    """What a step needs of one member; of all members before `vmap`."""

    state: MemberState
    batch: Batch
    seed: Int32[Array, "*s"]
    lr: Float[Array, "*s"]
    weight_decay: Float[Array, "*s"]
    class_mask: Bool[Array, "*s c"]


def train_step(spec: Spec, state: TrainState, batch: Batch, ensemble: Ensemble) -> tuple[TrainState, StepMetrics]:
    """One step of the optimizer for every member on the mean loss over the classes that it has.

    A member whose loss or gradient is not finite keeps its last finite state from then on, and `nan_step` says when.
    """
    lr, weight_decay = ensemble.lr * spec.lr_factor(state.step), ensemble.weight_decay
    inputs = _MemberInputs(state.members, batch, ensemble.seed, lr, weight_decay, ensemble.class_mask)
    with arithmetic_of(spec):
        members, metrics = map_members(
            spec.mesh,
            partial(_member_step, spec),
            inputs,
            state.step,
            sequential=_is_sequential(spec),
            at_once=spec.at_once,
        )
    state = TrainState(members, state.step + 1)
    return lax.with_sharding_constraint(state, state_sharding(spec, state)), metrics


def _member_step(spec: Spec, inputs: _MemberInputs, step: Int32[Array, ""]) -> tuple[MemberState, StepMetrics]:
    state, batch = inputs.state, inputs.batch

    def loss_of(params: PyTree) -> tuple[Array, tuple[PyTree, Array]]:
        key = step_key(inputs.seed, Stream.NETWORK, step)
        outputs, batch_stats = apply_network(spec, params, state.batch_stats, batch.images, train=True, key=key)
        losses = spec.functions.loss(outputs["logits"], batch.targets, inputs.class_mask)
        if losses.shape != batch.targets.shape:
            raise UserError(f"the loss gives an array of shape {losses.shape}, but must give one number an example")
        loss, predicted = losses.mean(), mask_logits(outputs["logits"], inputs.class_mask).argmax(axis=-1)
        return loss, (batch_stats, (predicted == batch.targets).mean(dtype=jnp.float32))

    whole = _whole(spec, state.params)
    (loss, (batch_stats, accuracy)), gradients = jax.value_and_grad(loss_of, has_aux=True)(whole)
    optimizer = spec.functions.optimizer(inputs.lr, inputs.weight_decay)
    updates, moments = optimizer.update(gradients, state.optimizer, state.params)
    finite = jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), (loss, gradients)))
    alive = state.nan_step < 0
    moved = (optax.apply_updates(state.params, updates), batch_stats, moments)
    kept = (state.params, state.batch_stats, state.optimizer)
    params, batch_stats, moments = jax.tree.map(partial(jnp.where, finite & alive), moved, kept)
    nan_step = jnp.where(alive & ~finite, step, state.nan_step)
    first = step % spec.steps_per_epoch == 0
    metrics = StepMetrics(loss, accuracy)
    totals = jax.tree.map(lambda total, now: jnp.where(first, now, total + now), state.totals, metrics)
    return MemberState(params, batch_stats, moments, nan_step, totals), metrics


def _whole(spec: Spec, params: PyTree) -> PyTree:
    """One member's parameters, whole on each of its devices for the forward and backward pass."""
    if not spec.config.mesh.shard_params or spec.mesh.size == 1:
        return params
    return lax.with_sharding_constraint(params, REPLICATED)


def _is_sequential(spec: Spec) -> bool:
    """Whether a step takes members sequentially: on a CPU, where an activation of one overflows a core's cache.

    So are members of networks that do not say how large it is: `vmap` makes grouped convolutions, slow on a CPU.
    """
    network, (height, width, _) = spec.functions.network, spec.image_shape
    if jax.default_backend() != "cpu" or spec.mesh.size > 1:
        return False
    pixels = height * width if network.spatial else 1
    return network.width is None or spec.config.optim.batch * pixels * network.width > ACTIVATION


def train_chunk(
    spec: Spec, state: TrainState, images: Images, ensemble: Ensemble, stop: Int32[Array, ""]
) -> tuple[TrainState, StepMetrics]:
    """Up to `chunk_steps` steps of one epoch, ending at step `stop`; metrics `[t s]`."""
    order = example_order(ensemble.seed, state.step // spec.steps_per_epoch, ensemble.train_targets.shape[1])
    order = lax.with_sharding_constraint(order, NamedSharding(spec.mesh, MEMBER))
    chunk = images.streamed

    def advance(images: Images, state: TrainState) -> tuple[TrainState, StepMetrics]:
        return train_step(spec, state, make_batch(spec, images, ensemble, order, state.step), ensemble)

    def idle(state: TrainState) -> tuple[TrainState, StepMetrics]:
        nothing = jnp.full(ensemble.lr.shape, jnp.nan, jnp.float32)
        return state, StepMetrics(nothing, nothing)

    def body(state: TrainState, pixels: Array | None) -> tuple[TrainState, StepMetrics]:
        now = images if chunk is None or pixels is None else images._replace(streamed=chunk._replace(pixels=pixels))
        return lax.cond(state.step < stop, partial(advance, now), idle, state)

    state, metrics = lax.scan(body, state, chunk and chunk.pixels, length=spec.config.chunk_steps)
    return lax.with_sharding_constraint(state, state_sharding(spec, state)), metrics


def compile_chunk(spec: Spec, state: TrainState, images: Images, ensemble: Ensemble) -> jax.stages.Compiled:
    """`train_chunk` compiled once for these shapes and shardings: call it with (state, images, ensemble, stop)."""
    stop = put(np.int32(0), NamedSharding(spec.mesh, REPLICATED))
    options = compiler_options(spec.config.deterministic)
    program = jax.jit(partial(train_chunk, spec), donate_argnums=0, compiler_options=options)
    return program.lower(state, images, ensemble, stop).compile()
