# SPDX-License-Identifier: Apache-2.0
"""Several multinomial logistic regressions on the same features at once, by Newton's method.

All labellings share both products of a pass over the rows. A step is found by preconditioned conjugate gradients; the
preconditioner is the Hessian's diagonal block of each class, from a sample of the rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ncjax.ops.linalg import eigh, inverse_cholesky
from ncjax.ops.products import gram, matmul

REDUCTION = 0.1  # of the preconditioned norm of the residual, by which a step is found
MOST_PRODUCTS = 12  # of the Hessian, for a step
MOST_HALVINGS = 20
LENGTHS = 24  # of a step that are tried at most on a sample
SHORTER = 2**-0.5  # of a length, the next that is tried
ENOUGH = 1e-4  # of the decrease that the slope promises, for a step to be taken
RENEWAL = 0.25  # of the weights of a block's examples, by which they change until it is renewed
CAUTION = 4.0  # by which the preconditioner's estimate of the suboptimality is multiplied
BLOCK_BYTES = 2**30  # of all blocks; where they are larger, they are replaced by their diagonals in a common basis


class Rows(NamedTuple):
    """Standardised features with the labellings of the examples."""

    features: Float[Array, "n d"]
    transposed: Float[Array, "d n"]  # the same numbers; products of a CPU that sum over rows are thrice as fast
    labels: Int32[Array, "p n"]
    shares: Float[Array, "n"]  # weights of the examples; their sum is 1


class Parameters(NamedTuple):
    """Of all labellings; gradients and steps too."""

    weights: Float[Array, "p c d"]
    bias: Float[Array, "p c"]


class Optimum(NamedTuple):
    """Where the solver has ended."""

    parameters: Parameters
    loss: Float[Array, "p"]
    gradient_norm: Float[Array, "p"]
    suboptimality: Float[Array, "p"]  # an estimate: nats above the least loss
    converged: Bool[Array, "p"]
    passes: Int32[Array, ""]  # over all rows, each two products


class Preconditioner(NamedTuple):
    """An approximate inverse of the Hessian, of arrays that follow the parameters."""

    empty: Any  # the arrays before they are renewed
    renew: Callable[[Any, Parameters], Any]  # the arrays at other parameters
    apply: Callable[[Any, Parameters], Parameters]


class _State(NamedTuple):
    parameters: Parameters
    step: Parameters
    scale: Float[Array, "p"]  # of the step that is tried
    slope: Float[Array, "p"]  # along the step
    loss: Float[Array, "p"]
    gradient_norm: Float[Array, "p"]
    suboptimality: Float[Array, "p"]
    halvings: Int32[Array, "p"]
    converged: Bool[Array, "p"]
    passes: Int32[Array, ""]
    curvature: Any  # arrays of the preconditioner


def minimise(
    rows: Rows,
    start: Parameters,
    preconditioner: Preconditioner,
    l2: Float[Array, ""] | float,
    tol: Float[Array, ""] | float,
    most_passes: int,
) -> Optimum:
    """Minimises the mean cross-entropy plus `l2/2 |W|^2` of every labelling, until all are within `tol` of their least.

    A step that does not lower the loss as its slope promises is halved. The suboptimality is estimated by
    `4 * g^T M^-1 g / 2`, `M` being the preconditioner, and believed where the last step promised at most ten times
    `tol`.

    Args:
        rows: the examples.
        start: parameters.
        preconditioner: follows the parameters.
        l2: strength of the penalty.
        tol: suboptimality at which a labelling ends [nats].
        most_passes: over the rows; it ends behind them.
    """

    def advance(now: _State) -> _State:
        tried = _add(now.parameters, now.scale, now.step)
        loss, probabilities = _loss(rows, tried, l2)
        gradient = _gradient(rows, tried, probabilities, l2)
        rounding = 8 * jnp.finfo(loss.dtype).eps * (1 + jnp.abs(now.loss))
        taken = (loss <= now.loss + ENOUGH * now.scale * now.slope + rounding) | ~jnp.isfinite(now.loss)
        curvature = preconditioner.renew(now.curvature, _select(taken & ~now.converged, tried, now.parameters))
        apply = partial(preconditioner.apply, curvature)
        estimate = CAUTION * dot(gradient, apply(gradient)) / 2
        converged = now.converged | (taken & (estimate <= tol) & (-now.slope / 2 <= 10 * tol))
        active = taken & ~converged & (now.halvings < MOST_HALVINGS)
        found, products = _newton_step(rows, probabilities, gradient, apply, active, l2, tol / (2 * CAUTION))
        return _State(
            parameters=_select(taken & ~now.converged, tried, now.parameters),
            step=_select(active, found, now.step),
            scale=jnp.where(active, 1.0, now.scale / 2),
            slope=jnp.where(active, dot(gradient, found), now.slope),
            loss=jnp.where(taken & ~now.converged, loss, now.loss),
            gradient_norm=jnp.where(taken & ~now.converged, jnp.sqrt(dot(gradient, gradient)), now.gradient_norm),
            suboptimality=jnp.where(taken & ~now.converged, estimate, now.suboptimality),
            halvings=jnp.where(taken, 0, now.halvings + 1),
            converged=converged,
            passes=now.passes + 1 + products,
            curvature=curvature,
        )

    def goes_on(now: _State) -> Array:
        return (~now.converged & (now.halvings < MOST_HALVINGS)).any() & (now.passes < most_passes)

    end = lax.while_loop(goes_on, advance, _initial(start, preconditioner.empty))
    return Optimum(end.parameters, end.loss, end.gradient_norm, end.suboptimality, end.converged, end.passes)


def _initial(start: Parameters, curvature: Any) -> _State:
    zero, none = jnp.zeros_like(start.bias[:, 0]), jnp.zeros(start.bias.shape[0], jnp.int32)
    still = jax.tree.map(jnp.zeros_like, start)
    return _State(start, still, zero, zero, zero + jnp.inf, zero, zero, none, none > 0, jnp.int32(0), curvature)


class Evaluated(NamedTuple):
    """What one pass over some rows gives, without penalty; sums over parts of the rows are those of all."""

    loss: Float[Array, "p"]
    gradient: Parameters
    hits: Float[Array, "p"]  # count of the rows with a share whose most probable class is their label


def evaluate_rows(rows: Rows, parameters: Parameters) -> tuple[Evaluated, Float[Array, "p n"]]:
    """Loss, gradient and accuracy of every labelling; and how undecided it is on each row: `1 - sum_c P_c^2`."""
    loss, probabilities = _loss(rows, parameters, 0.0)
    hits = ((probabilities.argmax(axis=1) == rows.labels) & (rows.shares > 0)[None, :]).sum(axis=1).astype(loss.dtype)
    undecided = 1 - (probabilities**2).sum(axis=1)
    return Evaluated(loss, _gradient(rows, parameters, probabilities, 0.0), hits), undecided


def solve_newton(
    rows: Rows,
    parameters: Parameters,
    right: Parameters,
    preconditioner: Preconditioner,
    l2: Float[Array, ""] | float,
    reduction: float,
    most_products: int,
) -> Parameters:
    """`H^-1 right` for the Hessian of the rows at some parameters, by preconditioned conjugate gradients.

    Args:
        rows: whose Hessian it is.
        parameters: where.
        right: one for each labelling.
        preconditioner: of these rows, or of a part of them.
        l2: strength of the penalty.
        reduction: of the preconditioned norm of the residual.
        most_products: of the Hessian.
    """
    probabilities, all_of_them = _loss(rows, parameters, l2)[1], jnp.ones(rows.labels.shape[0], bool)
    apply = partial(preconditioner.apply, preconditioner.renew(preconditioner.empty, parameters))
    opposite = jax.tree.map(jnp.negative, right)
    search = partial(_newton_step, rows, probabilities, opposite, apply, all_of_them, l2, 0.0)
    return search(reduction, most_products)[0]


def damping(
    rows: Rows, parameters: Parameters, step: Parameters, slope: Float[Array, "p"], l2: Float[Array, ""] | float
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
    logits, along = _logits(rows, parameters), _logits(rows, step)

    def loss(length: Array) -> Array:
        weights = parameters.weights + _spread(length, step.weights) * step.weights
        cross_entropy = _cross_entropy(rows, logits + _spread(length, along) * along)[0]
        return cross_entropy + l2 / 2 * (weights**2).sum(axis=(1, 2))

    still = jnp.zeros_like(slope)
    own_slope = jax.jvp(loss, (still,), (still + 1,))[1]

    def tilted(length: Array) -> Array:
        return loss(length) + length * (slope - own_slope)

    def shorten(now: _Length) -> _Length:
        tried = now.length * SHORTER
        value = tilted(tried)
        better = now.falls & (value < now.loss)
        return _Length(jnp.where(better, tried, now.length), jnp.where(better, value, now.loss), better, now.tries + 1)

    start = _Length(still + 1, tilted(still + 1), still == still, jnp.int32(1))
    return lax.while_loop(lambda now: now.falls.any() & (now.tries < LENGTHS), shorten, start).length


class _Length(NamedTuple):
    length: Float[Array, "p"]
    loss: Float[Array, "p"]
    falls: Bool[Array, "p"]  # whether the last length was better than the one before
    tries: Int32[Array, ""]


def _loss(rows: Rows, parameters: Parameters, l2: Array | float) -> tuple[Float[Array, "p"], Float[Array, "p c n"]]:
    cross_entropy, probabilities = _cross_entropy(rows, _logits(rows, parameters))
    return cross_entropy + l2 / 2 * (parameters.weights**2).sum(axis=(1, 2)), probabilities


def _cross_entropy(rows: Rows, logits: Float[Array, "p c n"]) -> tuple[Float[Array, "p"], Float[Array, "p c n"]]:
    """Its mean, and the probabilities."""
    highest = logits.max(axis=1, keepdims=True)
    powers = jnp.exp(logits - highest)
    total = powers.sum(axis=1, keepdims=True)
    own = jnp.where(_is_label(rows, logits.shape[1]), logits, 0.0).sum(axis=1)
    return matmul((highest + jnp.log(total))[:, 0] - own, rows.shares), powers / total


def _logits(rows: Rows, parameters: Parameters) -> Float[Array, "p c n"]:
    p, c, d = parameters.weights.shape
    logits = matmul(rows.features, parameters.weights.reshape(p * c, d).T)
    return logits.T.reshape(p, c, -1) + parameters.bias[:, :, None]


def _is_label(rows: Rows, classes: int) -> Bool[Array, "p c n"]:
    return rows.labels[:, None, :] == jnp.arange(classes, dtype=jnp.int32)[None, :, None]


def _sum_over_rows(rows: Rows, values: Float[Array, "p c n"]) -> Parameters:
    p, c, n = values.shape
    sums = matmul(rows.transposed, values.reshape(p * c, n).T)
    return Parameters(sums.T.reshape(p, c, -1), values.sum(axis=2))


def _gradient(rows: Rows, parameters: Parameters, probabilities: Array, l2: Array | float) -> Parameters:
    residuals = (probabilities - _is_label(rows, probabilities.shape[1])) * rows.shares[None, None, :]
    sums = _sum_over_rows(rows, residuals)
    return sums._replace(weights=sums.weights + l2 * parameters.weights)


def _hessian_product(rows: Rows, probabilities: Array, direction: Parameters, l2: Array | float) -> Parameters:
    changes = _logits(rows, direction)
    changes = probabilities * (changes - (probabilities * changes).sum(axis=1, keepdims=True))
    sums = _sum_over_rows(rows, changes * rows.shares[None, None, :])
    return sums._replace(weights=sums.weights + l2 * direction.weights)


class _Search(NamedTuple):
    step: Parameters
    residual: Parameters
    direction: Parameters
    norm: Float[Array, "p"]  # squared, preconditioned, of the residual
    products: Int32[Array, ""]


def _newton_step(
    rows: Rows,
    probabilities: Float[Array, "p c n"],
    gradient: Parameters,
    apply: Callable[[Parameters], Parameters],
    active: Bool[Array, "p"],
    l2: Array | float,
    enough: Array | float,
    reduction: float = REDUCTION,
    most_products: int = MOST_PRODUCTS,
) -> tuple[Parameters, Int32[Array, ""]]:
    """Conjugate gradients for the active labellings together; the others are left at 0."""
    residual = jax.tree.map(jnp.negative, gradient)
    direction = apply(residual)
    first = dot(residual, direction)

    def unfinished(now: _Search) -> Array:
        return active & (now.norm > jnp.maximum(reduction**2 * first, enough))

    def iterate(now: _Search) -> _Search:
        go, product = unfinished(now), _hessian_product(rows, probabilities, now.direction, l2)
        length = jnp.where(go, now.norm / dot(now.direction, product), 0.0)
        residual = _add(now.residual, -length, product)
        preconditioned = apply(residual)
        norm = dot(residual, preconditioned)
        turned = _add(preconditioned, norm / now.norm, now.direction)
        return _Search(
            _add(now.step, length, now.direction),
            residual,
            _select(go, turned, now.direction),
            jnp.where(go, norm, now.norm),
            now.products + 1,
        )

    start = _Search(jax.tree.map(jnp.zeros_like, gradient), residual, direction, first, jnp.int32(0))
    end = lax.while_loop(lambda now: unfinished(now).any() & (now.products < most_products), iterate, start)
    return end.step, end.products


class _Blocks(NamedTuple):
    """The Hessian's block of each class of each labelling, `k` in all."""

    weights: Float[Array, "k m"]  # of the examples of the sample
    inverse: Float[Array, "k d d"]  # of the Cholesky factor
    coupling: Float[Array, "k d"]  # of the weights with the bias, solved
    rest: Float[Array, "k"]  # of the bias alone


def make_preconditioner(sample: Rows, classes: int, l2: Array | float, most_bytes: int | None = None) -> Preconditioner:
    """The Hessian's block of each class over a sample; `diagonal_preconditioner` where blocks take more than allowed.

    None allows `BLOCK_BYTES`. A block is renewed where the weights of its examples have changed by more than a quarter.
    """
    (labellings, m), d = sample.labels.shape, sample.features.shape[1]
    k = labellings * classes
    if 4 * k * d * d > (BLOCK_BYTES if most_bytes is None else most_bytes):
        return diagonal_preconditioner(sample, classes, l2)

    def renew(blocks: _Blocks, parameters: Parameters) -> _Blocks:
        weights = _curvature(sample, parameters, l2).reshape(k, m)
        changed = jnp.abs(weights - blocks.weights).sum(axis=1) > RENEWAL * blocks.weights.sum(axis=1)
        inverse = lax.map(
            lambda one: lax.cond(one[0], lambda: _inverse_factor(sample.features, one[1], l2), lambda: one[2]),
            (changed, weights, blocks.inverse),
        )
        weights = jnp.where(changed[:, None], weights, blocks.weights)
        beside = matmul(weights, sample.features)
        coupling = _solve(inverse, beside)
        rest = jnp.maximum(weights.sum(axis=1) - (beside * coupling).sum(axis=1), jnp.finfo(weights.dtype).eps)
        return _Blocks(weights, inverse, coupling, rest)

    def apply(blocks: _Blocks, gradient: Parameters) -> Parameters:
        one, two = gradient.weights.reshape(k, d), gradient.bias.reshape(k)
        bias = (two - (blocks.coupling * one).sum(axis=1)) / blocks.rest
        weights = _solve(blocks.inverse, one) - blocks.coupling * bias[:, None]
        return _balanced(Parameters(weights.reshape(gradient.weights.shape), bias.reshape(gradient.bias.shape)))

    zeros = partial(jnp.zeros, dtype=sample.features.dtype)
    return Preconditioner(_Blocks(zeros((k, m)) - 1, zeros((k, d, d)), zeros((k, d)), zeros(k)), renew, apply)


def _curvature(sample: Rows, parameters: Parameters, l2: Array | float) -> Float[Array, "p c m"]:
    probabilities = _loss(sample, parameters, l2)[1]
    return probabilities * (1 - probabilities) * sample.shares[None, None, :]


def _inverse_factor(features: Float[Array, "m d"], curvature: Float[Array, "m"], l2: Array | float) -> Array:
    """`L^-1`, where `L L^T` is the block of a class."""
    identity = jnp.eye(features.shape[1], dtype=features.dtype)
    block = gram(features * jnp.sqrt(curvature)[:, None])
    block += (l2 + jnp.finfo(block.dtype).eps * jnp.trace(block)) * identity
    return inverse_cholesky(block)


def _solve(inverse: Float[Array, "k d d"], right: Float[Array, "k d"]) -> Float[Array, "k d"]:
    half = matmul(inverse, right[:, :, None])
    return matmul(inverse.mT, half)[:, :, 0]


def diagonal_preconditioner(sample: Rows, classes: int, l2: Array | float) -> Preconditioner:
    """The diagonal of each class's block in the basis of the principal axes, which all classes share."""
    axes = eigh(gram(sample.features * jnp.sqrt(sample.shares)[:, None]))[1]
    squares = matmul(sample.features, axes) ** 2

    def renew(_: tuple[Array, Array], parameters: Parameters) -> tuple[Array, Array]:
        curvature = _curvature(sample, parameters, l2)
        along = matmul(curvature, squares) + l2
        return along, jnp.maximum(curvature.sum(axis=2), jnp.finfo(along.dtype).eps)

    def apply(diagonals: tuple[Array, Array], gradient: Parameters) -> Parameters:
        along, bias = diagonals
        return _balanced(Parameters(matmul(matmul(gradient.weights, axes) / along, axes.T), gradient.bias / bias))

    shape = sample.labels.shape[0], classes
    empty = jnp.zeros((*shape, sample.features.shape[1])), jnp.zeros(shape)
    return Preconditioner(empty, renew, apply)


def _balanced(step: Parameters) -> Parameters:
    """Without what all classes have in common: it changes no probability, and at the optimum it is 0."""
    return jax.tree.map(lambda leaf: leaf - leaf.mean(axis=1, keepdims=True), step)


def _add(one: Parameters, scale: Float[Array, "p"], other: Parameters) -> Parameters:
    return jax.tree.map(lambda a, b: a + _spread(scale, b) * b, one, other)


def _select(mask: Bool[Array, "p"], one: Parameters, other: Parameters) -> Parameters:
    return jax.tree.map(lambda a, b: jnp.where(_spread(mask, a), a, b), one, other)


def _spread(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def dot(one: Parameters, other: Parameters) -> Float[Array, "p"]:
    """Inner product of each labelling."""
    products: Any = jax.tree.map(lambda a, b: (a * b).reshape(a.shape[0], -1).sum(axis=1), one, other)
    return products.weights + products.bias
