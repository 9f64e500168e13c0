# SPDX-License-Identifier: Apache-2.0
"""The compiled programs of the measures of collapse: one reads the examples, one evaluates what was read.

Each takes several networks, and several draws of the examples of each, in one program: on an accelerator they wait for
nothing in between.
"""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, PyTree

from ncjax.collapse.reading import Block, Classifier, Moments, Subsample, add_moments, block_moments
from ncjax.collapse.record import Function, Inputs
from ncjax.collapse.statistics import ClassStatistics, mean_of, merge_classes
from ncjax.collapse.units import UnitOrigin
from ncjax.collapse.variability import class_distances
from ncjax.ops.xla import jit_by_size


class Functions(NamedTuple):
    """What is computed; static under `jit`."""

    table: tuple[tuple[Inputs, Function, Function | None], ...]  # inputs, function, sums; each once
    coarse: int  # number of coarse classes
    level: Literal["coarse", "fine"] | None  # of the classifier

    def of(self, inputs: Inputs) -> tuple[Function, ...]:
        """The functions with these inputs."""
        return tuple(function for needed, function, _ in self.table if needed == inputs)

    @property
    def summed(self) -> tuple[Function, ...]:
        """The functions that need a sum over all examples."""
        return tuple(function for _, function, sums in self.table if sums is not None)


class Network(NamedTuple):
    """What belongs to a network beside its examples."""

    towards: UnitOrigin | None  # origin of unit vectors
    super_class: Int32[Array, "f"]
    classifier: Classifier | None


class Draw(NamedTuple):
    """How often each example counts."""

    counts: Float[Array, "g b"]
    sample: Int32[Array, "c m"] | None  # rows of a subsample of each super-class; -1: none. None: it is not needed
    means: ClassStatistics | None  # of the fine classes, which NC4 compares with; None: those of this draw


class Read(NamedTuple):
    """What the examples of a draw give."""

    moments: Moments
    sums: tuple[PyTree, ...]  # over the examples, for the functions that need them, in the order of the table
    sampled: tuple[PyTree, ...]  # results of the functions of a subsample


class Evaluated(NamedTuple):
    """Results by level, in the order of the functions."""

    each: tuple[PyTree, ...]  # of statistics; fine, coarse
    whole: tuple[PyTree, ...]
    within: tuple[PyTree, ...]
    sampled: tuple[PyTree, ...]
    classifier: tuple[PyTree, ...]
    class_distances: Float[Array, "f f"]
    total: Float[Array, ""]  # 0 where all features are the same
    counts: Float[Array, "f"]


@partial(jit_by_size, static_argnames="functions")
def read_networks(functions: Functions, blocks: Block, networks: Network, draws: Draw) -> Read:
    """Reads the blocks `[s g b ...]` of `[s]` networks in `[s r]` draws."""

    def read(one: tuple[Block, Network, Draw]) -> Read:
        blocks, network, draws = one
        return lax.map(lambda draw: _read(functions, blocks._replace(weights=draw.counts), network, draw), draws)

    return lax.map(read, (blocks, networks, draws))


def _read(functions: Functions, blocks: Block, network: Network, draw: Draw) -> Read:
    moments = _moments(blocks, network)
    sums = lax.map(lambda block: read_block(functions, block, moments, draw.means, network), blocks)
    totals = jax.tree.map(lambda leaf: leaf.sum(axis=0), sums)
    if draw.sample is None:
        return Read(moments, totals, ())
    weights = jnp.where(draw.sample >= 0, draw.counts.reshape(-1)[draw.sample], 0.0)
    rows = blocks.features.reshape(-1, blocks.features.shape[-1])[draw.sample]
    sample = Subsample(jnp.where(weights[:, :, None] > 0, rows, 0.0), weights, network.towards)
    return Read(moments, totals, read_sample(functions, sample, moments.fine, network.super_class))


def _moments(blocks: Block, network: Network) -> Moments:
    first: Block = jax.tree.map(itemgetter(0), blocks)
    origin = mean_of(first.features, first.weights)

    def moments(block: Block) -> Moments:
        return block_moments(block, origin, network.towards, network.super_class.size)

    if blocks.fine.shape[0] == 1:
        return moments(first)
    none: Moments = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(moments, first))
    start = Moments(none.fine._replace(origin=origin), none.units._replace(origin=network.towards))
    return lax.scan(lambda carry, block: (add_moments(carry, moments(block)), None), start, blocks)[0]


@partial(jax.jit, static_argnames="functions")
def read_block(
    functions: Functions, block: Block, moments: Moments, means: ClassStatistics | None, network: Network
) -> tuple[PyTree, ...]:
    """Of one block, what is summed over blocks.

    Args:
        functions: those that are evaluated.
        block: some examples.
        moments: of all.
        means: of the fine classes, which NC4 compares with; None: those of the moments.
        network: that the examples are of.
    """
    owner = network.super_class
    of_classifier = _of_classifier(functions, moments.fine if means is None else means, owner)
    beside = {"super_classes": (moments, owner), "classifier": (of_classifier, network.classifier)}
    return tuple(sums(block, *beside[inputs]) for inputs, _, sums in functions.table if sums is not None)


@partial(jax.jit, static_argnames="functions")
def read_sample(
    functions: Functions, sample: Subsample, fine: ClassStatistics, super_class: Int32[Array, "f"]
) -> tuple[PyTree, ...]:
    """Results of the functions of a subsample."""
    counts = merge_classes(fine, super_class, functions.coarse).counts
    return tuple(function(sample, counts) for function in functions.of("subsample"))


def _of_classifier(functions: Functions, fine: ClassStatistics, super_class: Int32[Array, "f"]) -> ClassStatistics:
    """Statistics of the classes of the classifier."""
    return merge_classes(fine, super_class, functions.coarse) if functions.level == "coarse" else fine


@partial(jit_by_size, static_argnames="functions")
def evaluate_networks(functions: Functions, reads: Sequence[Read], networks: Network) -> Evaluated:
    """Evaluates the functions for `[s]` networks, each in the `[r]` draws of all splits, one split behind the other."""
    joined: Read = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *reads)

    def evaluate(one: tuple[Read, Network]) -> Evaluated:
        draws, network = one
        return lax.map(lambda read: _evaluate(functions, read, network), draws)

    return lax.map(evaluate, (joined, networks))


def _evaluate(functions: Functions, read: Read, network: Network) -> Evaluated:
    fine, owner, classifier = read.moments.fine, network.super_class, network.classifier
    padded = merge_classes(fine, owner, owner.size)  # with empty classes: one program for both levels
    coarse = merge_classes(fine, owner, functions.coarse)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), fine, padded)
    distances = class_distances(fine)
    weights = () if classifier is None else (classifier.weights,)
    return Evaluated(
        each=lax.map(lambda statistics: tuple(f(statistics) for f in functions.of("statistics")), both),
        whole=tuple(function(fine) for function in functions.of("all")),
        within=_with_sums(functions, read, "super_classes", fine, coarse, owner),
        sampled=read.sampled,
        classifier=_with_sums(functions, read, "classifier", _of_classifier(functions, fine, owner), *weights),
        class_distances=distances,
        total=jnp.trace(fine.scatter) + distances.max(),
        counts=fine.counts,
    )


def _with_sums(functions: Functions, read: Read, inputs: Inputs, *arrays: PyTree) -> tuple[PyTree, ...]:
    totals = dict(zip(functions.summed, read.sums, strict=True))
    return tuple(
        function(totals[function], *arrays) if function in totals else function(*arrays)
        for function in functions.of(inputs)
    )


def by_level(functions: Functions, found: Evaluated) -> dict[str, dict[Function, PyTree]]:
    """The results of one draw, by level and function."""

    def named(inputs: Inputs, results: tuple[PyTree, ...]) -> dict[Function, PyTree]:
        return dict(zip(functions.of(inputs), results, strict=True))

    levels = {
        level: named("statistics", jax.tree.map(itemgetter(i), found.each))
        for i, level in enumerate(("fine", "coarse"))
    }
    levels |= {"all": named("all", found.whole)}
    levels |= {"within": named("super_classes", found.within) | named("subsample", found.sampled)}
    if functions.level is not None:
        levels[functions.level] |= named("classifier", found.classifier)
    return levels
