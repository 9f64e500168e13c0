# SPDX-License-Identifier: Apache-2.0
"""One run of the synthetic setting, a pure function of numbers and a seed."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt32

from ncjax.theory.config import DescentConfig, Settings, Shape, TheoryConfig
from ncjax.theory.hidden_metrics import coordinates, gate_statistics, hidden_geometry, recovery
from ncjax.theory.mixture import Sample, draw_means, draw_sample, noise_factor
from ncjax.theory.network import ShallowNetwork, accuracy, descend, hidden, init_network, label_code, mean_loss, outputs

T = TypeVar("T")


class Stream(IntEnum):
    """Independent random numbers of one seed."""

    MEANS = 0
    NOISE_AXES = 1
    TRAIN = 2
    TEST = 3
    WEIGHTS = 4
    BATCHES = 5
    KMEANS = 6


class Problem(NamedTuple):
    """The data of a run, and its initial network."""

    means: Float[Array, "k d"]
    train: Sample
    test: Sample
    network: ShallowNetwork
    code: Float[Array, "c o"]


class Trajectory(NamedTuple):
    """The metrics of one run; their leading axis `t` is that of the records."""

    metrics: dict[str, Float[Array, "t"]]
    diverged: Bool[Array, ""]  # the loss or a weight became infinite or NaN: later records are NaN


def record_steps(descent: DescentConfig) -> Int32[np.ndarray, "t"]:
    """Step 0 and the recorded steps: evenly spaced in their logarithm, rounded, distinct."""
    grid = np.round(np.geomspace(1, descent.steps, descent.records)) if descent.records > 1 else [descent.steps]
    return np.unique(np.concatenate([[0], grid, [descent.steps]])).astype(np.int32)


def make_problem(
    config: TheoryConfig,
    shape: Shape,
    settings: Settings,
    seed: UInt32[Array, ""],
    user_means: Float[Array, "k d"] | None = None,
) -> Problem:
    """Draws means, examples and weights; runs of one seed share them as far as their settings allow."""
    mixture, d = config.mixture, shape.dimension
    means = draw_means(_key(seed, Stream.MEANS), mixture, d, settings, user_means)
    factor = noise_factor(_key(seed, Stream.NOISE_AXES), mixture, d)
    code = label_code(mixture.labels, config.descent.loss)

    def sample(stream: Stream, examples: int, label_noise: Array | float) -> Sample:
        return draw_sample(_key(seed, stream), mixture, settings, means, factor, examples, label_noise)

    return Problem(
        means=means,
        train=sample(Stream.TRAIN, shape.train, settings.label_noise),
        test=sample(Stream.TEST, mixture.test, 0.0),
        network=init_network(_key(seed, Stream.WEIGHTS), config.network, code, d, shape.width, settings),
        code=code,
    )


def train_network(
    config: TheoryConfig,
    settings: Settings,
    seed: UInt32[Array, ""],
    problem: Problem,
    observe: Callable[[ShallowNetwork, Int32[Array, ""]], T],
) -> T:
    """Descends for `descent.steps` steps; returns the values of `observe(network, step)` at all records, stacked."""
    descent, sample = config.descent, problem.train

    def step(number: Array, network: ShallowNetwork) -> ShallowNetwork:
        inputs, label = sample.inputs, sample.label
        if descent.batch:
            key = jax.random.fold_in(_key(seed, Stream.BATCHES), number)
            chosen = jax.random.randint(key, (descent.batch,), 0, label.shape[0])
            inputs, label = inputs[chosen], label[chosen]
        return descend(network, config.network, descent, settings, problem.code, inputs, label)

    def advance(network: ShallowNetwork, span: tuple[Array, Array]) -> tuple[ShallowNetwork, T]:
        network = lax.fori_loop(span[0], span[1], step, network)
        return network, observe(network, span[1])

    stops = record_steps(descent)
    spans = jnp.asarray(np.concatenate([[0], stops[:-1]]), jnp.int32), jnp.asarray(stops, jnp.int32)
    return lax.scan(advance, problem.network, spans)[1]


def simulate(
    config: TheoryConfig,
    shape: Shape,
    settings: Settings,
    seed: UInt32[Array, ""],
    user_means: Float[Array, "k d"] | None = None,
) -> Trajectory:
    """Draws a problem, trains, and records.

    Metrics: train_loss, train_accuracy, test_loss, test_accuracy, those of `HiddenGeometry` and `Gates` on the
    training inputs, recovery (k-means inside the labels; NaN with no restarts).

    Args:
        config: what does not differ between runs; its swept numbers are ignored.
        shape: sizes of the arrays.
        settings: numbers of this run.
        seed: of everything that is random.
        user_means: with `mixture.means` file.
    """
    problem = make_problem(config, shape, settings, seed, user_means)

    def observe(network: ShallowNetwork, step: Array) -> dict[str, Array]:
        return measure_network(config, settings, seed, problem, network, step)

    metrics = train_network(config, settings, seed, problem, observe)
    sound = jnp.stack([jnp.isfinite(metrics[name]) for name in ("train_loss", "size")]).all(axis=0)
    sound = jnp.cumprod(sound.astype(jnp.int32)).astype(bool)
    kept = {name: jnp.where(sound, value, jnp.nan) for name, value in metrics.items() if name != "size"}
    return Trajectory(kept, ~sound[-1])


def measure_network(
    config: TheoryConfig,
    settings: Settings,
    seed: UInt32[Array, ""],
    problem: Problem,
    network: ShallowNetwork,
    step: Int32[Array, ""],
) -> dict[str, Float[Array, ""]]:
    """The metrics of one network, and `size`, which is finite as long as all weights are."""
    found: dict[str, Array] = {}
    features = {}
    for name, sample in (("train", problem.train), ("test", problem.test)):
        features[name] = hidden(network, config.network, sample.inputs)
        out = outputs(network, config.network, settings, features[name])
        found[f"{name}_loss"] = mean_loss(config.descent.loss, problem.code, out, sample.label)
        found[f"{name}_accuracy"] = accuracy(problem.code, out, sample.label)
    size = sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(network))
    points = coordinates(jnp.where(jnp.isfinite(size), features["train"], 0.0))
    component = problem.train.component
    found |= hidden_geometry(points, component, config)._asdict()
    at = problem.means, problem.train.inputs, component
    found |= gate_statistics(network.first, problem.network.first, *at)._asdict()
    key = jax.random.fold_in(_key(seed, Stream.KMEANS), step)
    found["recovery"] = recovery(key, points, component, config) if config.descent.restarts else jnp.float32(jnp.nan)
    return found | {"size": jnp.asarray(size)}


def _key(seed: Array, stream: Stream) -> Array:
    return jax.random.fold_in(jax.random.key(seed), stream)
