# SPDX-License-Identifier: Apache-2.0
"""The training step of an ensemble, and the chunk of steps that is compiled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int32, PyTree, UInt8

from ncjax.config import Config
from ncjax.training.augmentation import augment, normalise
from ncjax.distributed.sharding import shard_map
from ncjax.models import make_model
from ncjax.ops.xla import compiler_options
from ncjax.training.members import Ensemble, Images, Stream, example_order, fed_images
from ncjax.distributed.mesh import DATA, EVERYWHERE, MEMBER, MEMBER_BATCH, member_sharding, parameter_sharding, put
from ncjax.training.schedules import schedule_factor

ACTIVATION = 2**18  # values: 1 MiB in float32


@dataclass(frozen=True, kw_only=True)
class Spec:
    """All that is fixed when a run is compiled."""

    config: Config
    graph: nnx.GraphDef[nnx.Module]
    image_shape: tuple[int, int, int]
    classes: int
    steps_per_epoch: int
    mesh: Mesh

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.optim.epochs


class StepMetrics(NamedTuple):
    """Of one step, or of a chunk of `t` steps with a leading axis; NaN where no step was taken."""

    loss: Float[Array, "*t s"]
    accuracy: Float[Array, "*t s"]


class TrainState(NamedTuple):
    """All that changes during training; every leaf but `step` has the leading axis `s`."""

    params: PyTree
    batch_stats: PyTree
    optimiser: PyTree
    step: Int32[Array, ""]
    nan_step: Int32[Array, "s"]  # the step whose loss or gradient was not finite; -1: none was
    seen: StepMetrics  # summed over the steps of this epoch so far


def make_spec(config: Config, image_shape: tuple[int, int, int], classes: int, examples: int, mesh: Mesh) -> Spec:
    """What is compiled for a config, images of this shape, `classes` outputs and `examples` training images."""
    dtype = jnp.dtype(config.optim.dtype)
    model = nnx.eval_shape(lambda: make_model(config.model, image_shape, classes, dtype, nnx.Rngs(params=0)))
    return Spec(
        config=config,
        graph=nnx.graphdef(model),
        image_shape=image_shape,
        classes=classes,
        steps_per_epoch=examples // config.optim.batch,
        mesh=mesh,
    )


def init_state(spec: Spec, ensemble: Ensemble) -> TrainState:
    """Step 0: fresh weights from each member's seed, made where they will lie."""

    def member(seed: Array, lr: Array, weight_decay: Array) -> tuple[PyTree, PyTree, PyTree]:
        key = jax.random.fold_in(jax.random.key(seed), Stream.INIT)
        dtype = jnp.dtype(spec.config.optim.dtype)
        model = make_model(spec.config.model, spec.image_shape, spec.classes, dtype, nnx.Rngs(params=key))
        params, batch_stats = arrays_of(model, nnx.Param), arrays_of(model, nnx.BatchStat)
        return params, batch_stats, _optimiser(spec, lr, weight_decay).init(params)

    def state(ensemble: Ensemble) -> TrainState:
        params, batch_stats, optimiser = jax.vmap(member)(ensemble.seed, ensemble.lr, ensemble.weight_decay)
        seen = StepMetrics(jnp.zeros_like(ensemble.lr), jnp.zeros_like(ensemble.lr))
        nan_step = jnp.full_like(ensemble.seed, -1)
        return TrainState(params, batch_stats, optimiser, jnp.zeros((), jnp.int32), nan_step, seen)

    return jax.jit(state, out_shardings=state_sharding(spec, jax.eval_shape(state, ensemble)))(ensemble)


def state_sharding(spec: Spec, state: TrainState) -> TrainState:
    """Where each leaf of a state lies; parameters and optimiser over `data` too where the config asks for it."""
    shardings: TrainState = member_sharding(state, spec.mesh)
    if not spec.config.mesh.shard_params:
        return shardings
    spread = parameter_sharding((state.params, state.optimiser), spec.mesh)
    return shardings._replace(params=spread[0], optimiser=spread[1])


def arrays_of(model: nnx.Module, kind: type[nnx.Variable[Array]]) -> PyTree:
    """The variables of one kind, as nested dicts of arrays (or of shapes, for an abstract model)."""
    return nnx.to_pure_dict(nnx.state(model, kind))


def _optimiser(spec: Spec, lr: Array, weight_decay: Array) -> optax.GradientTransformation:
    """SGD as PyTorch defines it: decay is added to the gradient, the rate multiplies the momentum buffer."""
    sgd = optax.sgd(lr, momentum=spec.config.optim.momentum, nesterov=spec.config.optim.nesterov)
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd)


def _member_step(
    spec: Spec,
    state: TrainState,
    images: Float[Array, "b h w ch"],
    targets: Int32[Array, "b"],
    lr: Float[Array, ""],
    weight_decay: Float[Array, ""],
    class_mask: Bool[Array, "c"],
) -> tuple[TrainState, StepMetrics]:
    def loss_of(params: PyTree) -> tuple[Array, tuple[PyTree, Array]]:
        model = nnx.merge(spec.graph, params, state.batch_stats)
        logits, _ = model(images, train=True)
        logits = jnp.where(class_mask[None, :], logits, -1e9)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return loss, (arrays_of(model, nnx.BatchStat), (logits.argmax(axis=-1) == targets).mean(dtype=jnp.float32))

    whole = _whole(spec, state.params)
    (loss, (batch_stats, accuracy)), gradients = jax.value_and_grad(loss_of, has_aux=True)(whole)
    updates, optimiser = _optimiser(spec, lr, weight_decay).update(gradients, state.optimiser, state.params)
    finite = jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), (loss, gradients)))
    alive = state.nan_step < 0
    moved = (optax.apply_updates(state.params, updates), batch_stats, optimiser)
    kept = (state.params, state.batch_stats, state.optimiser)
    chosen = jax.tree.map(partial(jnp.where, finite & alive), moved, kept)
    nan_step = jnp.where(alive & ~finite, state.step, state.nan_step)
    params, batch_stats, optimiser = chosen
    first = state.step % spec.steps_per_epoch == 0
    metrics = StepMetrics(loss, accuracy)
    seen = jax.tree.map(lambda total, now: jnp.where(first, now, total + now), state.seen, metrics)
    return TrainState(params, batch_stats, optimiser, state.step, nan_step, seen), metrics


def _whole(spec: Spec, params: PyTree) -> PyTree:
    """One member's parameters, whole on each of its devices for the forward and backward pass."""
    if not spec.config.mesh.shard_params or spec.mesh.size == 1:
        return params
    return lax.with_sharding_constraint(params, EVERYWHERE)


class Batch(NamedTuple):
    """One step's images, augmented and normalised, and targets, for every member."""

    images: Float[Array, "s b h w ch"]
    targets: Int32[Array, "s b"]


def make_batch(
    spec: Spec, images: Images, ensemble: Ensemble, order: Int32[Array, "s n"], step: Int32[Array, ""]
) -> Batch:
    """Batch `step`: a function of (seed, step) alone, given the order of its epoch."""
    size, data = spec.config.optim.batch, spec.config.data
    start = (step % spec.steps_per_epoch) * size
    chosen = lax.dynamic_slice_in_dim(order, start, size, axis=1)
    chosen = lax.with_sharding_constraint(chosen, NamedSharding(spec.mesh, MEMBER))
    chosen = lax.with_sharding_constraint(chosen, NamedSharding(spec.mesh, MEMBER_BATCH))

    pixels = images.train[chosen] if images.fed is None else fed_images(images.fed)

    def member(seed: Array, pixels: Array, indices: Array, targets: Array) -> Batch:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), Stream.AUGMENT), step)
        batch = augment(key, pixels, crop_padding=data.crop_padding, flip=data.flip)
        return Batch(normalise(batch, images.mean, images.std), targets[indices])

    return jax.vmap(member)(ensemble.seed, pixels, chosen, ensemble.train_targets)


def train_step(spec: Spec, state: TrainState, batch: Batch, ensemble: Ensemble) -> tuple[TrainState, StepMetrics]:
    """One step of SGD for every member on the mean cross-entropy over the classes that it has.

    A member whose loss or gradient is not finite keeps its last finite state from then on, and `nan_step` says when.
    """
    factor = schedule_factor(spec.config.optim.schedule, spec.total_steps, state.step)
    now = state.step

    def member(inputs: tuple[Any, ...], now: Array) -> tuple[TrainState, StepMetrics]:
        state, *others = inputs
        state, metrics = _member_step(spec, state._replace(step=now), *others)
        return state._replace(step=None), metrics  # type: ignore[arg-type]

    members = (
        state._replace(step=None),  # type: ignore[arg-type]
        *(batch.images, batch.targets, ensemble.lr * factor, ensemble.weight_decay, ensemble.class_mask),
    )
    if _in_turn(spec):
        state, metrics = lax.map(lambda one: member(one, now), members)
    else:
        state, metrics = _at_once(spec, member, members, now)
    state = state._replace(step=now + 1)
    return lax.with_sharding_constraint(state, state_sharding(spec, state)), metrics


def _at_once(spec: Spec, member: Callable[..., Any], members: PyTree, shared: PyTree) -> Any:
    """`member(one, shared)` for all members, each on its own row of the mesh: rows have nothing to tell each other."""

    def row(members: PyTree, shared: PyTree) -> Any:
        return jax.vmap(member, in_axes=(0, None))(members, shared)

    if spec.mesh.size == 1:
        return row(members, shared)
    specs: Any = {"mesh": spec.mesh, "in_specs": (MEMBER, EVERYWHERE), "out_specs": MEMBER}
    return shard_map(row, axis_names=frozenset({"member"}), **specs)(members, shared)


def _in_turn(spec: Spec) -> bool:
    """Whether members take turns in a step: on a CPU, where an activation of one already overflows a core's cache."""
    optim, model = spec.config.optim, spec.config.model
    height, width, _ = spec.image_shape
    pixels = 1 if model.name == "mlp" else height * width
    return jax.default_backend() == "cpu" and spec.mesh.size == 1 and optim.batch * pixels * model.width > ACTIVATION


def train_chunk(
    spec: Spec, state: TrainState, images: Images, ensemble: Ensemble, stop: Int32[Array, ""]
) -> tuple[TrainState, StepMetrics]:
    """Up to `chunk_steps` steps within one epoch, ending at step `stop`; metrics `[t s]`."""
    order = example_order(ensemble.seed, state.step // spec.steps_per_epoch, ensemble.train_targets.shape[1])
    order = lax.with_sharding_constraint(order, NamedSharding(spec.mesh, MEMBER))
    fed = images.fed

    def advance(images: Images, state: TrainState) -> tuple[TrainState, StepMetrics]:
        return train_step(spec, state, make_batch(spec, images, ensemble, order, state.step), ensemble)

    def idle(state: TrainState) -> tuple[TrainState, StepMetrics]:
        nothing = jnp.full(ensemble.lr.shape, jnp.nan, jnp.float32)
        return state, StepMetrics(nothing, nothing)

    def body(state: TrainState, pixels: Array | None) -> tuple[TrainState, StepMetrics]:
        now = images if fed is None or pixels is None else images._replace(fed=fed._replace(pixels=pixels))
        return lax.cond(state.step < stop, partial(advance, now), idle, state)

    state, metrics = lax.scan(body, state, fed and fed.pixels, length=spec.config.chunk_steps)
    return lax.with_sharding_constraint(state, state_sharding(spec, state)), metrics


def compile_chunk(spec: Spec, state: TrainState, images: Images, ensemble: Ensemble) -> jax.stages.Compiled:
    """`train_chunk` compiled once for these shapes and places: call it with (state, images, ensemble, stop)."""
    stop = put(np.int32(0), NamedSharding(spec.mesh, EVERYWHERE))
    program = jax.jit(partial(train_chunk, spec), donate_argnums=0, compiler_options=compiler_options())
    return program.lower(state, images, ensemble, stop).compile()


def forward(
    spec: Spec, state: TrainState, pixels: Array, mean: Float[Array, "ch"], std: Float[Array, "ch"]
) -> tuple[Float[Array, "s n d"], Float[Array, "s n c"]]:
    """Features and logits of every member in evaluation mode, on images as they are; batches of the training size."""
    size = spec.config.optim.batch
    count = pixels.shape[0]
    starts = jnp.arange(-(-count // size), dtype=jnp.int32) * size

    def one_batch(start: Array) -> tuple[Array, Array]:
        rows = jnp.minimum(start + jnp.arange(size, dtype=jnp.int32), count - 1)
        return _see(spec, state, pixels[rows], mean, std)

    features, logits = _in_a_row(lax.map(one_batch, starts))
    return features[:, :count], logits[:, :count]


def forward_batches(
    spec: Spec,
    state: TrainState,
    batches: UInt8[Array, "k b h w ch"],
    mean: Float[Array, "ch"],
    std: Float[Array, "ch"],
) -> tuple[Float[Array, "s n d"], Float[Array, "s n c"]]:
    """`forward` on images that come in batches of the training size."""
    return _in_a_row(lax.map(lambda batch: _see(spec, state, batch, mean, std), batches))


def _see(spec: Spec, state: TrainState, batch: Array, mean: Array, std: Array) -> tuple[Array, Array]:
    def member(weights: tuple[PyTree, PyTree], images: Array) -> tuple[Array, Array]:
        logits, features = nnx.merge(spec.graph, *weights)(images, train=False)
        return features, logits

    images = normalise(lax.with_sharding_constraint(batch, NamedSharding(spec.mesh, DATA)), mean, std)
    seen: tuple[Array, Array] = _at_once(spec, member, (state.params, state.batch_stats), images)
    return seen


def _in_a_row(seen: tuple[Array, Array]) -> tuple[Array, Array]:
    """Batches `[k s b x]` as `[s n x]`."""
    features, logits = (x.swapaxes(0, 1).reshape(x.shape[1], -1, x.shape[-1]) for x in seen)
    return features, logits


def mean_loss_and_accuracy(
    logits: Float[Array, "s n c"], targets: Int32[Array, "s n"], class_mask: Bool[Array, "s c"]
) -> StepMetrics:
    """Mean cross-entropy (nats) and share of right answers of every member, over the classes that it has."""
    logits = jnp.where(class_mask[:, None, :], logits, -1e9)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean(axis=1)
    return StepMetrics(loss, (logits.argmax(axis=-1) == targets).mean(axis=1, dtype=jnp.float32))
