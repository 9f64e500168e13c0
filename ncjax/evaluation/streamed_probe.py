# SPDX-License-Identifier: Apache-2.0
"""The linear probe of features larger than memory: few passes, each of which corrects a problem in memory.

Rows are drawn so that every class of every labelling is well represented. Their problem, weighted so that it stands for
all rows, is solved in memory. A pass over all rows gives loss `f` and gradient `g` there; the next parameters minimise
`f_sample(W) + <g - g_sample, W>` (DANE, Shamir, Srebro and Zhang 2014), which has the gradient of all rows and the
curvature of the sample. A step that does not lower the loss as its slope promises is halved.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from ncjax.collapse.reading import Block, Labelled, block_size, blocks
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.evaluation.linear_probe import LinearProbe, solve, some_of
from ncjax.evaluation.probe_solver import (
    CAUTION,
    ENOUGH,
    Evaluated,
    Optimum,
    Parameters,
    Rows,
    evaluate_rows,
    make_preconditioner,
    minimise,
)
from ncjax.evaluation.streamed_moments import Scaling
from ncjax.ops.sums import Sums, add_term, total_of, zero_sums

RARE = 64  # rows of a class of which about as many are drawn, however rare it is
COPIES = 6  # of the probabilities of the sample that the solver holds
LEAST_ROWS = 1024  # of the sample
BLOCKS_SHARE = 1 / 4  # of the memory: for the blocks of the preconditioner
MOST_PASSES = 20
IN_MEMORY_PASSES = 1000  # over the sample, for a step
FINER = 0.1  # of the tolerance: that of the problems in memory


class Problem(NamedTuple):
    """What is fitted.

    Attributes:
        data: features; rows of weight 0 count nothing.
        labels: of each labelling; any class for rows of weight 0.
        classes: number of classes of every labelling.
        scaling: by which features are standardised.
        l2: strength of the penalty on standardised weights.
        tol: estimated suboptimality at which a labelling has converged [nats].
        mesh: over which each block is sharded; None: one device.
    """

    data: Labelled
    labels: Int32[np.ndarray, "p n"]
    classes: int
    scaling: Scaling
    l2: float = 1e-4
    tol: float = 1e-5
    mesh: Mesh | None = None

    @property
    def present(self) -> Bool[np.ndarray, "n"]:
        """Which rows count."""
        return self.data.counts > 0


class Fitted(NamedTuple):
    """A probe, and the share of the training rows that each labelling's classifier is right about."""

    probe: LinearProbe
    accuracy: Float[np.ndarray, "p"]


class _Standardiser(NamedTuple):
    mean: Float32[np.ndarray, "d"]
    std: Float32[np.ndarray, "d"]
    varies: Bool[np.ndarray, "d"]


class _State(NamedTuple):
    """Of all labellings; the parameters are the best of each so far."""

    parameters: Parameters
    step: Parameters
    scale: Float[np.ndarray, "p"]
    slope: Float[np.ndarray, "p"]
    loss: Float[np.ndarray, "p"]
    gradient: Parameters
    hits: Float[np.ndarray, "p"]
    suboptimality: Float[np.ndarray, "p"]
    converged: Bool[np.ndarray, "p"]


def fit_streamed_probe(problem: Problem, memory_bytes: int, most_passes: int = MOST_PASSES) -> Fitted:
    """`fit_linear_probe` of rows that are read a block at a time, to the same optimum.

    A labelling has converged where `4 * (-slope / 2)` is at most `tol`, the slope being that of the loss along the step
    that the corrected sample proposes: twice the decrease that it promises.

    Args:
        problem: features, labellings, penalty and tolerance.
        memory_bytes: for the sample and what is computed on it.
        most_passes: over the rows; it ends behind them.
    """
    standardiser = _Standardiser(*(np.asarray(x) for x in _narrow(problem.scaling)))
    sample = _Sample(problem, standardiser, memory_bytes)
    now = _start(sample.first(), len(problem.labels), problem.data.rows.shape[1])
    passes = 0
    while passes < most_passes and not now.converged.all():
        tried = _add(now.parameters, now.scale, now.step)
        now, passes = _advance(problem, sample, now, tried, _evaluate(problem, standardiser, tried)), passes + 1
    return Fitted(_probe(problem, now, passes), now.hits)


def _narrow(scaling: Scaling) -> Iterator[np.ndarray]:
    return (x if x.dtype == bool else x.astype(np.float32) for x in scaling)


def _start(parameters: Parameters, p: int, d: int) -> _State:
    still, zero = jax.tree.map(np.zeros_like, parameters), np.zeros(p)
    return _State(parameters, still, zero + 1, zero, zero + np.inf, still, zero, zero + np.inf, zero > 0)


def _advance(problem: Problem, sample: "_Sample", now: _State, tried: Parameters, found: Evaluated) -> _State:
    """Takes the steps that lower the loss as they promise, and finds the next of each labelling that goes on."""
    loss = found.loss + problem.l2 / 2 * (tried.weights.astype(np.float64) ** 2).sum(axis=(1, 2))
    gradient = found.gradient._replace(weights=found.gradient.weights + problem.l2 * tried.weights)
    rounding = 8 * np.finfo(np.float32).eps * (1 + np.abs(np.where(np.isfinite(now.loss), now.loss, 0)))
    taken = ~now.converged & ((loss <= now.loss + ENOUGH * now.scale * now.slope + rounding) | ~np.isfinite(now.loss))
    now = now._replace(
        parameters=_select(taken, tried, now.parameters),
        loss=np.where(taken, loss, now.loss),
        gradient=_select(taken, gradient, now.gradient),
        hits=np.where(taken, found.hits, now.hits),
        scale=np.where(taken, 1.0, now.scale / 2) * ~now.converged,
    )
    step, slope, suboptimality = jax.tree.map(np.copy, (now.step, now.slope, now.suboptimality))
    for i in np.flatnonzero(taken):
        own: Parameters = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], now.parameters)
        towards: Parameters = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], now.gradient)
        best = sample.corrected(i, own, towards)
        for into, end, begin in zip(step, best, own, strict=True):
            into[i] = (end - begin)[0]
        slope[i] = sum(float((a[i].astype(np.float64) * b[i]).sum()) for a, b in zip(now.gradient, step, strict=True))
        suboptimality[i] = CAUTION * max(-slope[i], 0.0) / 2
    converged = now.converged | (taken & (suboptimality <= problem.tol))
    scale = np.where(converged, 0.0, now.scale)
    return now._replace(step=step, slope=slope, suboptimality=suboptimality, converged=converged, scale=scale)


def _probe(problem: Problem, now: _State, passes: int) -> LinearProbe:
    std, mean = problem.scaling.std.astype(np.float32), problem.scaling.mean.astype(np.float32)
    squares = sum((leaf.astype(np.float64) ** 2).reshape(len(leaf), -1).sum(axis=1) for leaf in now.gradient)
    return LinearProbe(
        weights=jnp.asarray(now.parameters.weights.swapaxes(1, 2) / std[None, :, None]),
        bias=jnp.asarray(now.parameters.bias),
        loss=jnp.asarray(now.loss, jnp.float32),
        gradient_norm=jnp.asarray(np.sqrt(squares), jnp.float32),
        suboptimality=jnp.asarray(now.suboptimality, jnp.float32),
        iterations=jnp.full(len(now.loss), passes, jnp.int32),
        converged=jnp.asarray(now.converged),
        origin=jnp.asarray(mean),
    )


# ------------------------------------------------------------------ one pass over all rows


def _evaluate(problem: Problem, standardiser: _Standardiser, parameters: Parameters) -> Evaluated:
    """Mean loss, its gradient and the accuracy over all rows; sums over blocks are compensated for rounding."""
    mesh, total = problem.mesh, np.float32(problem.present.sum())
    size = block_size(problem.data, mesh.size if mesh else 1)
    parameters = jax.tree.map(jnp.asarray, parameters)
    zero = jnp.zeros(len(problem.labels))
    sums = zero_sums(Evaluated(zero, parameters, zero))
    for place, block in enumerate(blocks(problem.data, mesh)):
        labels = problem.labels[:, place * size : (place + 1) * size]
        labels = np.pad(labels, ((0, 0), (0, size - labels.shape[1])))
        sums = _add_block(sums, block, shard_rows(labels, mesh, axis=1), standardiser, parameters, total)
    whole: Evaluated = total_of(to_host(sums))
    return whole._replace(gradient=jax.tree.map(lambda leaf: leaf.astype(np.float32), whole.gradient))


@partial(jax.jit, donate_argnames="sums")
def _add_block(
    sums: Sums,
    block: Block,
    labels: Int32[Array, "p b"],
    standardiser: _Standardiser,
    parameters: Parameters,
    total: Float32[Array, ""],
) -> Sums:
    z = _standardise(block.features, standardiser)
    shares = jnp.where(block.weights > 0, 1 / total, 0.0)
    return add_term(sums, evaluate_rows(Rows(z, z.T, labels, shares), parameters))


@jax.jit
def _standardise(rows: Float[Array, "b d"], standardiser: _Standardiser) -> Float[Array, "b d"]:
    mean, std, varies = standardiser
    return jnp.where(varies[None, :], (rows - mean[None, :]) / std[None, :], 0.0)


# ------------------------------------------------------------------ the sample in memory


class _Sample:
    """Some rows in memory, and the solver on them; one labelling at a time."""

    def __init__(self, problem: Problem, standardiser: _Standardiser, memory_bytes: int) -> None:
        self._problem, self._block_bytes = problem, int(BLOCKS_SHARE * memory_bytes)
        index, weights = draw_rows(problem, sample_size(problem, memory_bytes - self._block_bytes))
        rows = jnp.asarray(np.asarray(problem.data.rows[index], np.float32))
        self._features = _standardise(rows, standardiser)
        self._transposed = self._features.T
        self._labels = problem.labels[:, index]
        self._shares = jnp.asarray((weights / weights.sum()).astype(np.float32))

    def first(self) -> Parameters:
        """The optimum of each labelling on the sample."""
        problem = self._problem
        ends = [self._of(i) for i in range(len(problem.labels))]
        ends = [_solve(rows, problem.l2, problem.tol, problem.classes, self._block_bytes) for rows in ends]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *(to_host(end.parameters) for end in ends))

    def corrected(self, labelling: int, start: Parameters, gradient: Parameters) -> Parameters:
        """The optimum on the sample, whose gradient at the start is replaced by that of all rows."""
        problem = self._problem
        tol = FINER * problem.tol
        rows = self._of(labelling)
        end = _correct(rows, start, gradient, problem.l2, tol, problem.classes, self._block_bytes)
        return to_host(end.parameters)

    def _of(self, labelling: int) -> Rows:
        labels = jnp.asarray(self._labels[labelling : labelling + 1])
        return Rows(self._features, self._transposed, labels, self._shares)


def sample_size(problem: Problem, memory_bytes: int) -> int:
    """Rows whose features and transposed features, and probabilities of the classes a few times, fit the memory."""
    a_row = 4 * (2 * problem.data.rows.shape[1] + COPIES * problem.classes)
    return min(int(problem.present.sum()), max(LEAST_ROWS, memory_bytes // a_row))


def draw_rows(problem: Problem, count: int) -> tuple[Int[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """About `count` row numbers in order, each with the inverse of its chance to be drawn.

    A row's chance is the larger of `m / n` and, over labellings, of `RARE / rows of its class` (fewer than 64 where
    classes are so many that they would fill half of the sample).
    """
    present, (p, n) = problem.present, problem.labels.shape
    rows = int(present.sum())
    if count >= rows:
        return np.flatnonzero(present), np.ones(rows)
    rare = min(RARE, max(1, count // (2 * p * problem.classes)))
    chances = np.full(n, count / rows)
    for labels in problem.labels:
        counts = np.bincount(labels[present], minlength=problem.classes)
        np.maximum(chances, (rare / np.maximum(counts, 1))[labels], out=chances)
    chances = np.minimum(chances, 1.0)
    drawn = np.flatnonzero(present & (np.random.default_rng(0).random(n) < chances))
    return drawn, 1 / chances[drawn]


@partial(jax.jit, static_argnames=("classes", "block_bytes"))
def _solve(rows: Rows, l2: float, tol: float, classes: int, block_bytes: int) -> Optimum:
    return solve(rows, classes, l2, tol, IN_MEMORY_PASSES, None, block_bytes)


@partial(jax.jit, static_argnames=("classes", "block_bytes"))
def _correct(
    rows: Rows, start: Parameters, gradient: Parameters, l2: float, tol: float, classes: int, block_bytes: int
) -> Optimum:
    own = evaluate_rows(rows, start).gradient
    own = own._replace(weights=own.weights + l2 * start.weights)
    linear = jax.tree.map(jnp.subtract, gradient, own)
    preconditioner = make_preconditioner(some_of(rows, None), classes, l2, block_bytes)
    return minimise(rows, start, preconditioner, l2, tol, IN_MEMORY_PASSES, linear)


def _add(one: Parameters, scale: Float[np.ndarray, "p"], other: Parameters) -> Parameters:
    return Parameters(
        one.weights + scale.astype(np.float32)[:, None, None] * other.weights,
        one.bias + scale.astype(np.float32)[:, None] * other.bias,
    )


def _select(mask: Bool[np.ndarray, "p"], one: Parameters, other: Parameters) -> Parameters:
    return Parameters(*(np.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(one, other, strict=True)))
