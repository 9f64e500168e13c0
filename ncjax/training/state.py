# SPDX-License-Identifier: Apache-2.0
"""What is fixed when a run is compiled, and what changes during training."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Key, PyTree

from ncjax.config import Config
from ncjax.distributed.sharding import member_sharding, parameter_sharding
from ncjax.errors import UserError
from ncjax.models import Variables
from ncjax.models.network import Outputs, check_outputs
from ncjax.ops.member_conv import use_lowerings
from ncjax.ops.precision import precise_products
from ncjax.training.functions import NO_OWN, Functions, OwnFunctions, find_functions
from ncjax.training.members import Ensemble, Stream
from ncjax.training.schedules import factor_at


@dataclass(frozen=True, kw_only=True)
class Spec:
    """All that is fixed when a run is compiled."""

    config: Config
    functions: Functions
    graph: Hashable  # of the network's variables
    image_shape: tuple[int, int, int]
    classes: int
    steps_per_epoch: int
    mesh: Mesh
    at_once: int = 0  # members of a device that a pass computes together; 0: all
    lowerings: tuple[tuple[str, str], ...] = ()  # of convolutions of several members, by the text of their case

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.optim.epochs

    def lr_factor(self, step: Int32[Array, ""]) -> Float[Array, ""]:
        """The factor of every member's peak learning rate at a step."""
        optim = self.config.optim
        length = self.steps_per_epoch * (optim.schedule_epochs or optim.epochs)
        return factor_at(self.functions.schedule, step, length, self.total_steps)


class StepMetrics(NamedTuple):
    """Of one step, or of a chunk of `t` steps with a leading axis; NaN where no step was taken."""

    loss: Float[Array, "*t s"]
    accuracy: Float[Array, "*t s"]


class MemberState(NamedTuple):
    """What changes of every member; each leaf has the leading axis `s`, which `vmap` takes away inside a step."""

    params: PyTree
    batch_stats: PyTree
    optimizer: PyTree
    nan_step: Int32[Array, "*s"]  # the step whose loss or gradient was not finite; -1: none was
    totals: StepMetrics  # summed over the steps of this epoch so far


class TrainState(NamedTuple):
    """All that changes during training."""

    members: MemberState
    step: Int32[Array, ""]  # steps taken


def make_spec(
    config: Config,
    image_shape: tuple[int, int, int],
    classes: int,
    examples: int,
    mesh: Mesh,
    own: OwnFunctions = NO_OWN,
) -> Spec:
    """What is compiled for a config, images of this shape, `classes` outputs and `examples` training images.

    Raises:
        UserError: a name of the config is unknown.
    """
    functions = find_functions(config, own)
    return Spec(
        config=config,
        functions=functions,
        graph=jax.eval_shape(lambda: functions.network.init(jax.random.key(0), image_shape, classes)).graph,
        image_shape=image_shape,
        classes=classes,
        steps_per_epoch=examples // config.optim.batch,
        mesh=mesh,
    )


@contextmanager
def arithmetic_of(spec: Spec) -> Iterator[None]:
    """A context for tracing: how the products and convolutions of a run are computed."""
    with precise_products(spec.config.optim.precision), use_lowerings(dict(spec.lowerings)):
        yield


def apply_network(
    spec: Spec,
    params: PyTree,
    batch_stats: PyTree,
    images: Float[Array, "b h w ch"],
    *,
    train: bool,
    key: Key[Array, ""],
) -> tuple[Outputs, PyTree]:
    """Named tensors of one member, and its batch statistics after the pass.

    Raises:
        UserError: the network does not return what `Network` says.
    """
    network = spec.functions.network
    outputs, after = network.apply(Variables(params, batch_stats, spec.graph), images, train=train, key=key)
    before, now = (jax.tree.structure(tree) for tree in (batch_stats, after.batch_stats))
    if before != now:  # type: ignore[operator]
        raise UserError(f"network {network.name} makes or drops batch_stats in a pass; make all of them in init")
    return check_outputs(outputs, images.shape[0], spec.classes, network.name), after.batch_stats


def init_state(spec: Spec, ensemble: Ensemble) -> TrainState:
    """The state at step 0: fresh weights from each member's seed, made on the devices where they stay."""

    def member(seed: Array, lr: Array, weight_decay: Array) -> tuple[PyTree, PyTree, PyTree]:
        key = jax.random.fold_in(jax.random.key(seed), Stream.INIT)
        variables = spec.functions.network.init(key, spec.image_shape, spec.classes)
        optimizer = spec.functions.optimizer(lr, weight_decay).init(variables.params)
        return variables.params, variables.batch_stats, optimizer

    def state(ensemble: Ensemble) -> TrainState:
        fresh = jax.vmap(member)(ensemble.seed, ensemble.lr, ensemble.weight_decay)
        totals = StepMetrics(jnp.zeros_like(ensemble.lr), jnp.zeros_like(ensemble.lr))
        return TrainState(MemberState(*fresh, jnp.full_like(ensemble.seed, -1), totals), jnp.zeros((), jnp.int32))

    return jax.jit(state, out_shardings=state_sharding(spec, jax.eval_shape(state, ensemble)))(ensemble)


def blank_state(spec: Spec, ensemble: Ensemble) -> TrainState:
    """A state of the right shapes and shardings, all zero, without the work of `init_state`: to be read into."""

    def blank() -> TrainState:
        shapes = jax.eval_shape(lambda: init_state(spec, ensemble))
        state: TrainState = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return state._replace(members=state.members._replace(nan_step=state.members.nan_step - 1))

    return jax.jit(blank, out_shardings=state_sharding(spec, jax.eval_shape(blank)))()


def state_sharding(spec: Spec, state: TrainState) -> TrainState:
    """The sharding of each leaf of a state; parameters and optimizer over `data` too if the config says so."""
    shardings: TrainState = member_sharding(state, spec.mesh)
    if not spec.config.mesh.shard_params:
        return shardings
    params, optimizer = parameter_sharding((state.members.params, state.members.optimizer), spec.mesh)
    return shardings._replace(members=shardings.members._replace(params=params, optimizer=optimizer))
