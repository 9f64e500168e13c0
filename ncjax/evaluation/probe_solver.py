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

from ncjax.evaluation.logistic_loss import (
    Blocks,
    Parameters,
    Rows,
    add,
    dot,
    gradient_of,
    hessian_product,
    loss_of,
    probabilities_of,
    select,
)
from ncjax.ops.linalg import eigh, inverse_cholesky
from ncjax.ops.products import gram, matmul

REDUCTION = 0.1  # of the preconditioned norm of the residual, by which a step is found
MOST_PRODUCTS = 12  # of the Hessian, for a step
MOST_HALVINGS = 20
ENOUGH = 1e-4  # of the decrease that the slope promises, for a step to be taken
RENEWAL = 0.25  # of the weights of a block's examples, by which they change until it is renewed
CAUTION = 4.0  # by which the preconditioner's estimate of the suboptimality is multiplied
BLOCK_BYTES = 2**30  # of all blocks; where they are larger, they are replaced by their diagonals in a common basis


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
    rows: Blocks,
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
        tried = add(now.parameters, now.scale, now.step)
        loss, probabilities = loss_of(rows, tried, l2)
        gradient = gradient_of(rows, tried, probabilities, l2)
        rounding = 8 * jnp.finfo(loss.dtype).eps * (1 + jnp.abs(now.loss))
        taken = (loss <= now.loss + ENOUGH * now.scale * now.slope + rounding) | ~jnp.isfinite(now.loss)
        curvature = preconditioner.renew(now.curvature, select(taken & ~now.converged, tried, now.parameters))
        apply = partial(preconditioner.apply, curvature)
        estimate = CAUTION * dot(gradient, apply(gradient)) / 2
        converged = now.converged | (taken & (estimate <= tol) & (-now.slope / 2 <= 10 * tol))
        active = taken & ~converged & (now.halvings < MOST_HALVINGS)
        found, products = _newton_step(rows, probabilities, gradient, apply, active, l2, tol / (2 * CAUTION))
        return _State(
            parameters=select(taken & ~now.converged, tried, now.parameters),
            step=select(active, found, now.step),
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


def solve_newton(
    rows: Blocks,
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
    probabilities, all_of_them = loss_of(rows, parameters, l2)[1], jnp.ones(parameters.bias.shape[0], bool)
    apply = partial(preconditioner.apply, preconditioner.renew(preconditioner.empty, parameters))
    opposite = jax.tree.map(jnp.negative, right)
    search = partial(_newton_step, rows, probabilities, opposite, apply, all_of_them, l2, 0.0)
    return search(reduction, most_products)[0]


class _Search(NamedTuple):
    step: Parameters
    residual: Parameters
    direction: Parameters
    norm: Float[Array, "p"]  # squared, preconditioned, of the residual
    products: Int32[Array, ""]


def _newton_step(
    rows: Blocks,
    probabilities: Float[Array, "g p c b"],
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
        go, product = unfinished(now), hessian_product(rows, probabilities, now.direction, l2)
        length = jnp.where(go, now.norm / dot(now.direction, product), 0.0)
        residual = add(now.residual, -length, product)
        preconditioned = apply(residual)
        norm = dot(residual, preconditioned)
        turned = add(preconditioned, norm / now.norm, now.direction)
        return _Search(
            add(now.step, length, now.direction),
            residual,
            select(go, turned, now.direction),
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
        weights = _curvature(sample, parameters).reshape(k, m)
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


def _curvature(sample: Rows, parameters: Parameters) -> Float[Array, "p c m"]:
    probabilities = probabilities_of(sample.features, parameters)
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
        curvature = _curvature(sample, parameters)
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
