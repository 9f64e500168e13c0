# SPDX-License-Identifier: Apache-2.0
"""Collapse during training: the cheap measures of all members on some training images, without leaving the device."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int32, UInt8

from ncjax.collapse import ClassStatistics, cdnv, class_statistics, nc1, nc2
from ncjax.data import Dataset
from ncjax.distributed.mesh import REPLICATED
from ncjax.distributed.sharding import put
from ncjax.ops.xla import compiler_options
from ncjax.training.forward import forward
from ncjax.training.members import Ensemble, Images
from ncjax.training.state import Spec, TrainState

Observe = Callable[[int, TrainState], Mapping[str, Float[Array, "s"]]]


def make_observer(spec: Spec, state: TrainState, dataset: Dataset, ensemble: Ensemble, images: Images) -> Observe:
    """A function of (epoch, state) that gives a number for each member and metric where they are due, else nothing.

    The numbers are on the devices, and need not be there yet. The program is compiled here, where it is ever due.

    Every `evaluate.observe_epochs` epochs: NC1, its ratio, CDNV and NC2 to the labels that each member is trained on
    and to the fine ones, on `evaluate.observe_images` training images, drawn at random and always the same. One
    compiled program; what comes to the host is a few numbers a member.
    """
    config, count = spec.config.evaluate, dataset.train.labels.size
    drawn = np.random.default_rng(0).permutation(count)[: config.observe_images]
    rows = np.sort(drawn).astype(np.int32)
    options = compiler_options(spec.config.deterministic)
    if not 0 < config.observe_epochs <= spec.config.optim.epochs:
        return lambda epoch, state: {}
    observed = np.asarray(dataset.train.images[rows]), dataset.train.labels[rows], rows
    sample = put(observed, NamedSharding(spec.mesh, REPLICATED))
    program = jax.jit(partial(_observe, spec, len(dataset.class_names)), compiler_options=options)
    compiled = program.lower(state, ensemble, *sample, images.mean, images.std).compile()

    def observe(epoch: int, state: TrainState) -> Mapping[str, Float[Array, "s"]]:
        if epoch % config.observe_epochs:
            return {}
        found: Mapping[str, Float[Array, s]] = compiled(state, ensemble, *sample, images.mean, images.std)
        return found

    return observe


def _observe(
    spec: Spec,
    fine_classes: int,
    state: TrainState,
    ensemble: Ensemble,
    images: UInt8[Array, "n h w ch"],
    fine: Int32[Array, "n"],
    rows: Int32[Array, "n"],
    mean: Float[Array, "ch"],
    std: Float[Array, "ch"],
) -> dict[str, Float[Array, "s"]]:
    features = forward(spec, state, images, mean, std)["features"]

    def member(features: Array, targets: Array) -> dict[str, Array]:
        features = features.astype(jnp.float32)
        coarse = _cheap(class_statistics(features, targets, spec.classes))
        natural = _cheap(class_statistics(features, fine, fine_classes))
        levels = {"coarse": coarse, "fine": natural}
        return {f"{name}_{level}": value for level, found in levels.items() for name, value in found.items()}

    return jax.vmap(member)(features, ensemble.train_targets[:, rows])


def _cheap(statistics: ClassStatistics) -> dict[str, Array]:
    """The measures that need no eigenvalues but those of the class means."""
    collapse, shape = nc1(statistics), nc2(statistics)
    return {
        "nc1": collapse.nc1,
        "nc1_ratio": collapse.nc1_ratio,
        "cdnv": cdnv(statistics),
        "nc2_equinorm": shape.nc2_equinorm,
        "nc2_equiangularity": shape.nc2_equiangularity,
        "nc2_etf": shape.nc2_etf,
    }
