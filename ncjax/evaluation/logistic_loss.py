# SPDX-License-Identifier: Apache-2.0
"""The loss of several multinomial logistic regressions on the same features, its gradient and products of its Hessian.

All labellings share both products of a pass over the rows. On CPUs rows are passed over in blocks, so that the
probabilities of a block stay in a cache between the products.
"""

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, PyTree

from ncjax.ops.products import matmul

LENGTHS = 24  # of a step that are tried at most on a sample
SHORTER = 2**-0.5  # of a length, the next that is tried
BLOCK_FLOATS = 2**20  # of the features of a block, or of its probabilities


class Rows(NamedTuple):
    """Standardised features with the labellings of the examples."""

    features: Float[Array, "n d"]
    labels: Int32[Array, "p n"]
    shares: Float[Array, "n"]  # weights of the examples; their sum is 1


class Block(NamedTuple):
    """Some of the rows. `Blocks` are several: each array has one more axis, `g`, in front."""

    features: Float[Array, "b d"]
    transposed: Float[Array, "d b"]  # the same numbers; products of a CPU that sum over rows are thrice as fast
    labels: Int32[Array, "p b"]
    shares: Float[Array, "b"]  # 0 for padding


Blocks: TypeAlias = Block


class Parameters(NamedTuple):
    """Of all labellings; gradients and steps too."""

    weights: Float[Array, "p c d"]
    bias: Float[Array, "p c"]


def in_blocks(rows: Rows, classes: int, *, whole: bool = False) -> Blocks:
    """Rows in blocks of which features and probabilities fit a CPU's cache; on other devices in one.

    Args:
        rows: the examples.
        classes: of each labelling.
        whole: one block; where rows are sharded over devices.
    """
    (p, n), d = rows.labels.shape, rows.features.shape[1]
    most = n if whole or jax.default_backend() != "cpu" else max(1, BLOCK_FLOATS // max(d, p * classes))
    count = max(1, -(-n // most))
    size = -(-n // count)
    missing = count * size - n

    def blocks(array: Array, axis: int) -> Array:
        padded = jnp.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)]) if missing else array
        shape = (*array.shape[:axis], count, size, *array.shape[axis + 1 :])
        return jnp.moveaxis(padded.reshape(shape), axis, 0)

    features = blocks(rows.features, 0)
    transposed = rows.features.T[None] if count == 1 else features.mT
    return Blocks(features, transposed, blocks(rows.labels, 1), blocks(rows.shares, 0))


def _each(function: Callable[..., PyTree], *arrays: PyTree) -> PyTree:
    """Of each block, `[g ...]`."""
    if jax.tree.leaves(arrays)[0].shape[0] == 1:
        return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(itemgetter(0), arrays)))
    return lax.map(lambda block: function(*block), arrays)


def _total(function: Callable[..., PyTree], *arrays: PyTree) -> PyTree:
    """The sum over blocks."""
    first = jax.tree.map(itemgetter(0), arrays)
    if jax.tree.leaves(arrays)[0].shape[0] == 1:
        return function(*first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *first))
    return lax.scan(lambda sums, block: (jax.tree.map(jnp.add, sums, function(*block)), None), zeros, arrays)[0]


def loss_of(
    rows: Blocks, parameters: Parameters, l2: Array | float
) -> tuple[Float[Array, "p"], Float[Array, "g p c b"]]:
    """The loss of every labelling, and the probabilities."""
    cross_entropies, probabilities = _each(
        lambda block: _cross_entropy(block, _logits(block.features, parameters)), rows
    )
    return cross_entropies.sum(axis=0) + l2 / 2 * (parameters.weights**2).sum(axis=(1, 2)), probabilities


def _logits(features: Float[Array, "b d"], parameters: Parameters) -> Float[Array, "p c b"]:
    p, c, d = parameters.weights.shape
    logits = matmul(features, parameters.weights.reshape(p * c, d).T)
    return logits.T.reshape(p, c, -1) + parameters.bias[:, :, None]


def _cross_entropy(rows: Block, logits: Float[Array, "p c b"]) -> tuple[Float[Array, "p"], Float[Array, "p c b"]]:
    """Its sum over rows, by their shares, and the probabilities."""
    highest = logits.max(axis=1, keepdims=True)
    powers = jnp.exp(logits - highest)
    total = powers.sum(axis=1, keepdims=True)
    own = jnp.where(_is_label(rows, logits.shape[1]), logits, 0.0).sum(axis=1)
    return matmul((highest + jnp.log(total))[:, 0] - own, rows.shares), powers / total


def _is_label(rows: Block, classes: int) -> Bool[Array, "p c b"]:
    return rows.labels[:, None, :] == jnp.arange(classes, dtype=jnp.int32)[None, :, None]


def _sum_over_rows(rows: Block, values: Float[Array, "p c b"]) -> Parameters:
    p, c, n = values.shape
    sums = matmul(rows.transposed, values.reshape(p * c, n).T)
    return Parameters(sums.T.reshape(p, c, -1), values.sum(axis=2))


def probabilities_of(features: Float[Array, "n d"], parameters: Parameters) -> Float[Array, "p c n"]:
    """Of every class of every labelling."""
    return jax.nn.softmax(_logits(features, parameters), axis=1)


def gradient_of(
    rows: Blocks, parameters: Parameters, probabilities: Float[Array, "g p c b"], l2: Array | float
) -> Parameters:
    """The gradient of the loss of every labelling."""
    return _with_penalty(_total(_block_gradient, rows, probabilities), parameters, l2)


def _block_gradient(block: Block, probabilities: Float[Array, "p c b"]) -> Parameters:
    residuals = (probabilities - _is_label(block, probabilities.shape[1])) * block.shares[None, None, :]
    return _sum_over_rows(block, residuals)


def hessian_product(
    rows: Blocks, probabilities: Float[Array, "g p c b"], direction: Parameters, l2: Array | float
) -> Parameters:
    """The Hessian of every labelling's loss, where it has these probabilities, times a direction."""

    def of_block(block: Block, probabilities: Float[Array, "p c b"]) -> Parameters:
        changes = _logits(block.features, direction)
        ones = jnp.ones((1, changes.shape[1]), changes.dtype)
        means = matmul(ones, probabilities * changes)  # XLA fuses a plain sum on CPUs, and takes twice as long for all
        changes = probabilities * (changes - means)
        return _sum_over_rows(block, changes * block.shares[None, None, :])

    return _with_penalty(_total(of_block, rows, probabilities), direction, l2)


def _with_penalty(sums: Parameters, at: Parameters, l2: Array | float) -> Parameters:
    return sums._replace(weights=sums.weights + l2 * at.weights)


class Evaluated(NamedTuple):
    """What one pass over some rows gives, without penalty; sums over parts of the rows are those of all."""

    loss: Float[Array, "p"]
    gradient: Parameters
    hits: Float[Array, "p"]  # count of the rows with a share whose most probable class is their label


def evaluate_rows(rows: Rows, parameters: Parameters) -> tuple[Evaluated, Float[Array, "p n"]]:
    """Loss, gradient and accuracy of every labelling; and how undecided it is on each row: `1 - sum_c P_c^2`."""
    block = Block(rows.features, rows.features.T, rows.labels, rows.shares)
    loss, probabilities = _cross_entropy(block, _logits(rows.features, parameters))
    right = (probabilities.argmax(axis=1) == rows.labels) & (rows.shares > 0)[None, :]
    found = Evaluated(loss, _block_gradient(block, probabilities), right.sum(axis=1).astype(loss.dtype))
    return found, 1 - (probabilities**2).sum(axis=1)


def damping(
    rows: Blocks, parameters: Parameters, step: Parameters, slope: Float[Array, "p"], l2: Float[Array, ""] | float
) -> Float[Array, "p"]:
    """The best of the lengths 1, 1/sqrt(2), 1/2, ... of a step for the loss of the rows, with another slope at 0.

    The loss is convex along the step: the first length behind which it rises is the best of all.

    Args:
        rows: a sample of those that the loss is of.
        parameters: where the step begins.
        step: of each labelling.
        slope: of the loss that is wanted, along the step.
        l2: strength of the penalty.
    """
    logits, along = (_each(partial(_logits, parameters=one), rows.features) for one in (parameters, step))

    def of_block(length: Array) -> Callable[[Block, Array, Array], Array]:
        return lambda block, logits, along: _cross_entropy(block, logits + spread(length, along) * along)[0]

    def loss(length: Array) -> Array:
        weights = parameters.weights + spread(length, step.weights) * step.weights
        return _total(of_block(length), rows, logits, along) + l2 / 2 * (weights**2).sum(axis=(1, 2))

    still = jnp.zeros_like(slope)
    own_slope = jax.jvp(loss, (still,), (still + 1,))[1]

    def tilted(length: Array) -> Array:
        return loss(length) + length * (slope - own_slope)

    def shorten(now: _Length) -> _Length:
        tried = now.length * SHORTER
        value = tilted(tried)
        better = now.falls & ((value < now.loss) | ~jnp.isfinite(now.loss))
        return _Length(jnp.where(better, tried, now.length), jnp.where(better, value, now.loss), better, now.tries + 1)

    start = _Length(still + 1, tilted(still + 1), still == still, jnp.int32(1))
    return lax.while_loop(lambda now: now.falls.any() & (now.tries < LENGTHS), shorten, start).length


class _Length(NamedTuple):
    length: Float[Array, "p"]
    loss: Float[Array, "p"]
    falls: Bool[Array, "p"]  # whether the last length was better than the one before
    tries: Int32[Array, ""]


def add(one: Parameters, scale: Float[Array, "p"], other: Parameters) -> Parameters:
    """`one + scale * other`."""
    return jax.tree.map(lambda a, b: a + spread(scale, b) * b, one, other)


def select(mask: Bool[Array, "p"], one: Parameters, other: Parameters) -> Parameters:
    """Of each labelling `one` where the mask is true, else `other`."""
    return jax.tree.map(lambda a, b: jnp.where(spread(mask, a), a, b), one, other)


def spread(values: Float[Array, "p"] | Bool[Array, "p"], like: Array) -> Array:
    """One value for each labelling, in a shape that multiplies `like` `[p ...]`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def dot(one: Parameters, other: Parameters) -> Float[Array, "p"]:
    """Inner product of each labelling."""
    products: Any = jax.tree.map(lambda a, b: (a * b).reshape(a.shape[0], -1).sum(axis=1), one, other)
    return products.weights + products.bias
