# SPDX-License-Identifier: Apache-2.0
"""The linear probe of features larger than memory, in few passes: Newton's method with the Hessian of a sample.

Rows are drawn so that every class of every labelling is well represented; their optimum in memory is the start. A pass
over all rows tries one step of every labelling: it gives loss and gradient, and how undecided each row is. The next
step is that of L-BFGS (Nocedal 1980) over the passes so far, whose inverse Hessian begins with that of a sample
(sub-sampled Newton: Byrd and others 2011) which prefers rows that are undecided, for they make the Hessian. What the
sample gets wrong, the gradients of all rows correct.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Int32

from ncjax.collapse.reading import Block, Labelled, block_size, blocks
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.evaluation.linear_probe import LinearProbe, solve, some_of
from ncjax.evaluation.logistic_loss import Evaluated, Parameters, Rows, damping, evaluate_rows, in_blocks
from ncjax.evaluation.probe_solver import ENOUGH, Optimum, make_preconditioner, solve_newton
from ncjax.evaluation.streamed_moments import Scaling
from ncjax.ops.sums import Sums, add_term, total_of, zero_sums

RARE = 64  # rows of a class of which about as many are drawn, however rare it is
DECIDED = 0.1  # of the mean of how undecided rows are: a row counts as no less
COPIES = 6  # of the probabilities of the sample that the solver holds
CAUTION = 16.0  # by which the decrease that a step promises is multiplied: a sample's Hessian misses more
LEAST_ROWS, MOST_ROWS = 2**10, 2**16  # of the sample
BLOCKS_SHARE = 1 / 4  # of the memory: for the blocks of the preconditioner
MOST_PASSES = 20
IN_MEMORY_PASSES = 1000  # over the sample, for the start
START_TOL = 1e-2  # of the start: the sample differs from all rows by more [nats]
REDUCTION, MOST_PRODUCTS = 0.1, 20  # of conjugate gradients on the sample, for a step
SHORTER = 0.1, 0.5  # of a step that is not taken: the least and the most that is tried next
Scalar: TypeAlias = Float[Array, ""] | float


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
    accuracy: Float64[np.ndarray, "p"]


def fit_streamed_probe(problem: Problem, memory_bytes: int, most_passes: int = MOST_PASSES) -> Fitted:
    """`fit_linear_probe` of rows that are read a block at a time, to the same optimum.

    A labelling has converged where `16 * (-slope / 2)` is at most `tol`, the slope being that of the loss along the
    next step: twice the decrease that it promises.

    Args:
        problem: features, labellings, penalty and tolerance.
        memory_bytes: for the sample and what is computed on it.
        most_passes: over the rows; it ends behind them.
    """
    standardiser = _standardiser(problem.scaling)
    solver = _Sampled(problem, standardiser, memory_bytes)
    paths = [_Path(at) for at in solver.optima()]
    passes = 0
    while passes < most_passes and not all(path.converged for path in paths):
        passes += 1
        tried = np.stack([path.tried for path in paths])
        found, undecided = _evaluate(problem, standardiser, _unflatten(tried, problem.classes))
        gradients = _flatten(found.gradient) + problem.l2 * _penalised(tried, problem.classes)
        losses = found.loss + problem.l2 / 2 * (_penalised(tried, problem.classes) ** 2).sum(axis=1)
        going = [i for i, path in enumerate(paths) if not path.converged]
        ahead = [i for i in going if paths[i].visit(float(losses[i]), gradients[i], float(found.hits[i]))]
        if ahead:
            solver.draw(undecided[ahead])
        for i in ahead:
            paths[i].turn(partial(solver.newton, i, paths[i].at), partial(solver.damp, i, paths[i].at))
            paths[i].converged = paths[i].suboptimality <= problem.tol
    rows = problem.present.sum()
    return Fitted(_probe(problem, paths, passes), np.array([path.hits for path in paths]) / rows)


class _Path:
    """Where one labelling is, and where it goes next; vectors hold weights and bias."""

    def __init__(self, start: Float64[np.ndarray, "v"]) -> None:
        self.at = self.tried = start
        self.loss, self.hits, self.suboptimality, self.slope = np.inf, 0.0, np.inf, 0.0
        self.gradient, self.step, self.scale, self.converged = np.zeros_like(start), np.zeros_like(start), 1.0, False
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []  # changes of parameters and of gradients

    def visit(self, loss: float, gradient: Float64[np.ndarray, "v"], hits: float) -> bool:
        """Goes to what was tried, where the loss is as the slope promised; else a shorter step is tried."""
        rounding = 8 * np.finfo(np.float32).eps * (1 + abs(loss))
        first = not np.isfinite(self.loss)
        if first or loss <= self.loss + ENOUGH * self.scale * self.slope + rounding:
            if not first:
                self._pairs.append((self.tried - self.at, gradient - self.gradient))
            self.at, self.loss, self.gradient, self.hits = self.tried, float(loss), gradient, float(hits)
            return True
        shorter = _least_of_cubic(self.scale, self.loss, self.slope, float(loss), float(gradient @ self.step))
        self.scale *= float(np.clip(shorter, *SHORTER))
        self.tried = self.at + self.scale * self.step
        return False

    def turn(self, newton: Callable[[np.ndarray], np.ndarray], damp: Callable[[np.ndarray, float], float]) -> None:
        """The next step: L-BFGS around an approximate inverse of the Hessian, as long as a model of the loss says."""
        right, shares = self.gradient.copy(), []
        pairs = [(s, y, 1 / (s @ y)) for s, y in self._pairs if s @ y > 0]
        for s, y, rate in reversed(pairs):
            shares.append(rate * (s @ right))
            right -= shares[-1] * y
        step = newton(right)
        for (s, y, rate), share in zip(pairs, reversed(shares), strict=True):
            step += (share - rate * (y @ step)) * s
        self.step, self.slope = -step, -float(self.gradient @ step)
        self.scale = damp(self.step, self.slope)
        self.tried = self.at + self.scale * self.step
        self.suboptimality = CAUTION * max(-self.slope, 0.0) / 2


def _least_of_cubic(scale: float, loss: float, slope: float, other: float, other_slope: float) -> float:
    """Where, in units of the scale, the cubic with these values and slopes at 0 and at the scale is least."""
    slope, other_slope = slope * scale, other_slope * scale
    middle = slope + other_slope - 3 * (other - loss)
    root = np.sqrt(max(middle**2 - slope * other_slope, 0.0))
    below = other_slope - slope + 2 * root
    return 1 - (other_slope + root - middle) / below if below > 0 else SHORTER[1]


def _probe(problem: Problem, paths: list[_Path], passes: int) -> LinearProbe:
    std = problem.scaling.std.astype(np.float32)
    parameters = _unflatten(np.stack([path.at for path in paths]), problem.classes)
    norms, losses, gaps = (np.array(x, np.float32) for x in zip(*map(_evidence, paths), strict=True))
    return LinearProbe(
        weights=jnp.asarray(np.swapaxes(parameters.weights, 1, 2) / std[None, :, None]),
        bias=jnp.asarray(parameters.bias),
        loss=jnp.asarray(losses),
        gradient_norm=jnp.asarray(norms),
        suboptimality=jnp.asarray(gaps),
        iterations=jnp.full(len(paths), passes, jnp.int32),
        converged=jnp.array([path.converged for path in paths]),
        origin=jnp.asarray(problem.scaling.mean, jnp.float32),
    )


def _evidence(path: _Path) -> tuple[float, float, float]:
    return float(np.linalg.norm(path.gradient)), path.loss, path.suboptimality


def _flatten(parameters: Parameters) -> Float64[np.ndarray, "p v"]:
    p = len(parameters.bias)
    return np.concatenate([np.asarray(x, np.float64).reshape(p, -1) for x in parameters], axis=1)


def _unflatten(vectors: Float64[np.ndarray, "p v"], classes: int) -> Parameters:
    weights, bias = np.split(vectors.astype(np.float32), [vectors.shape[1] - classes], axis=1)
    return Parameters(weights.reshape(len(vectors), classes, -1), bias)  # type: ignore[arg-type]


def _penalised(vectors: Float64[np.ndarray, "p v"], classes: int) -> Float64[np.ndarray, "p v"]:
    """With 0 for the bias."""
    return np.concatenate([vectors[:, :-classes], np.zeros((len(vectors), classes))], axis=1)


# ------------------------------------------------------------------ one pass over all rows


class _Standardiser(NamedTuple):
    mean: Float32[np.ndarray, "d"]
    std: Float32[np.ndarray, "d"]
    varies: Bool[np.ndarray, "d"]


def _standardiser(scaling: Scaling) -> _Standardiser:
    return _Standardiser(scaling.mean.astype(np.float32), scaling.std.astype(np.float32), scaling.varies)


def _evaluate(
    problem: Problem, standardiser: _Standardiser, parameters: Parameters
) -> tuple[Evaluated, Float32[np.ndarray, "p n"]]:
    """Mean loss, its gradient and the accuracy over all rows, and how undecided each labelling is on each row."""
    mesh, total = problem.mesh, np.float32(problem.present.sum())
    size = block_size(problem.data, mesh.size if mesh else 1)
    parameters = jax.tree.map(jnp.asarray, parameters)
    zero = jnp.zeros(len(problem.labels))
    sums, each = zero_sums(Evaluated(zero, parameters, zero)), []
    for place, block in enumerate(blocks(problem.data, mesh)):
        labels = problem.labels[:, place * size : (place + 1) * size]
        labels = np.pad(labels, ((0, 0), (0, size - labels.shape[1])))
        sums, undecided = _add_block(sums, block, shard_rows(labels, mesh, axis=1), standardiser, parameters, total)
        each.append(undecided)
    return total_of(to_host(sums)), np.concatenate(to_host(each), axis=1)[:, : len(problem.data.fine)]


@partial(jax.jit, donate_argnames="sums")
def _add_block(
    sums: Sums,
    block: Block,
    labels: Int32[Array, "p b"],
    standardiser: _Standardiser,
    parameters: Parameters,
    total: Float32[Array, ""],
) -> tuple[Sums, Float32[Array, "p b"]]:
    z = _standardise(block.features, standardiser)
    shares = jnp.where(block.weights > 0, 1 / total, 0.0)
    found, undecided = evaluate_rows(Rows(z, labels, shares), parameters)
    return add_term(sums, found), undecided


@jax.jit
def _standardise(rows: Float[Array, "b d"], standardiser: _Standardiser) -> Float[Array, "b d"]:
    mean, std, varies = standardiser
    return jnp.where(varies[None, :], (rows - mean[None, :]) / std[None, :], 0.0)


# ------------------------------------------------------------------ the sample in memory


class _Sampled:
    """What is solved on samples of the rows, one labelling at a time."""

    def __init__(self, problem: Problem, standardiser: _Standardiser, memory_bytes: int) -> None:
        self._problem, self._standardiser = problem, standardiser
        self._block_bytes = int(BLOCKS_SHARE * memory_bytes)
        self._count = sample_size(problem, memory_bytes - self._block_bytes)
        self._sample: _Sample | None = None

    def _draw(self, chances: Float64[np.ndarray, "n"]) -> None:
        drawn = draw_rows(chances)
        missing = max(0, self._count + 1 - len(drawn))  # samples of one size share compiled programs
        index, weights = np.pad(drawn, (0, missing), mode="edge"), np.pad(1 / chances[drawn], (0, missing))
        self._sample = None  # one at a time in memory
        rows = jnp.asarray(np.asarray(self._problem.data.rows[index], np.float32))
        features = _standardise(rows, self._standardiser)
        shares = jnp.asarray(weights / weights.sum(), jnp.float32)
        self._sample = _Sample(index, features, shares)

    def _rows(self, labelling: int) -> Rows:
        sample = self._sample
        assert sample is not None
        labels = self._problem.labels[labelling : labelling + 1, sample.numbers]
        return Rows(sample.features, jnp.asarray(labels), sample.shares)

    def optima(self) -> Float64[np.ndarray, "p v"]:
        """The optimum of each labelling, with a penalty that is as much larger as the rows are fewer."""
        problem = self._problem
        self._draw(chances_of(by_classes(problem, self._count), self._count))
        stronger = problem.l2 * float(problem.present.sum()) / self._count
        ends = []
        for i in range(len(problem.labels)):
            rows = self._rows(i)
            ends.append(_solve(rows, stronger, START_TOL, problem.classes, self._block_bytes).parameters)
        return np.concatenate([_flatten(to_host(end)) for end in ends])

    def draw(self, undecided: Float32[np.ndarray, "q n"]) -> None:
        """A new sample, in proportion to how undecided labellings are on them, each labelling with the same part."""
        present, chances = self._problem.present, np.zeros(undecided.shape[1])
        for own in undecided:
            least = DECIDED * float(own[present].mean()) + np.finfo(np.float32).tiny
            chances += chances_of(np.where(present, np.maximum(own, least), 0), self._count) / len(undecided)
        self._draw(chances)

    def newton(
        self, labelling: int, at: Float64[np.ndarray, "v"], right: Float64[np.ndarray, "v"]
    ) -> Float64[np.ndarray, "v"]:
        """`H^-1 right` for the Hessian of a labelling on a sample."""
        problem = self._problem
        point, of_right = (_unflatten(vector[None], problem.classes) for vector in (at, right))
        found = _newton(self._rows(labelling), point, of_right, problem.l2, problem.classes, self._block_bytes)
        return _flatten(to_host(found))[0]

    def damp(
        self,
        labelling: int,
        at: Float64[np.ndarray, "v"],
        step: Float64[np.ndarray, "v"],
        slope: float,
    ) -> float:
        """How much of a step is best for the loss on a sample whose slope is replaced by that of all rows."""
        problem = self._problem
        point, towards = (_unflatten(vector[None], problem.classes) for vector in (at, step))
        return float(_damp(self._rows(labelling), point, towards, np.array([slope], np.float32), problem.l2)[0])


class _Sample(NamedTuple):
    """Some rows in memory, standardised; shares add up to 1, and are 0 for padding."""

    numbers: Int[np.ndarray, "m"]
    features: Float[Array, "m d"]
    shares: Float[Array, "m"]


def sample_size(problem: Problem, memory_bytes: int) -> int:
    """Rows whose features, thrice, and probabilities of the classes, a few times, fit the memory; 65,536 at most."""
    a_row = 4 * (3 * problem.data.rows.shape[1] + COPIES * problem.classes)
    return min(int(problem.present.sum()), MOST_ROWS, max(LEAST_ROWS, memory_bytes // a_row))


def by_classes(problem: Problem, count: int) -> Float64[np.ndarray, "n"]:
    """In proportion to what rows are drawn so that every class of every labelling has some.

    A row's part is the larger of `m / n` and, over labellings, of `RARE / rows of its class` (fewer than 64 where
    classes are so many that they would fill half of the sample).
    """
    present, (p, n) = problem.present, problem.labels.shape
    rare, chances = min(RARE, max(1, count // (2 * p * problem.classes))), np.full(n, count / present.sum())
    for labels in problem.labels:
        counts = np.bincount(labels[present], minlength=problem.classes)
        np.maximum(chances, (rare / np.maximum(counts, 1))[labels], out=chances)
    return np.where(present, chances, 0.0)


def chances_of(parts: Float[np.ndarray, "n"], count: int) -> Float64[np.ndarray, "n"]:
    """Chances in proportion to the parts, none above 1; their sum is `count`, or how many parts are not 0."""
    wide, sure = parts.astype(np.float64), np.zeros(len(parts), bool)
    if count >= (wide > 0).sum():
        return (wide > 0).astype(np.float64)
    while True:
        rate = (count - sure.sum()) / wide[~sure].sum()
        more = ~sure & (rate * wide >= 1)
        if not more.any():
            return np.where(sure, 1.0, rate * wide)
        sure |= more


def draw_rows(chances: Float64[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
    """Row numbers in order, each at most once, as many as the chances add up to (systematic sampling)."""
    total, shift = np.cumsum(chances), np.random.default_rng(0).random()
    drawn = np.searchsorted(total, np.arange(round(float(total[-1]))) + shift, side="right")
    return np.unique(np.minimum(drawn, np.flatnonzero(chances)[-1]))


@partial(jax.jit, static_argnames=("classes", "block_bytes"))
def _solve(rows: Rows, l2: Scalar, tol: Scalar, classes: int, block_bytes: int) -> Optimum:
    return solve(rows, classes, l2, tol, IN_MEMORY_PASSES, None, block_bytes)


@partial(jax.jit, static_argnames=("classes", "block_bytes"))
def _newton(rows: Rows, at: Parameters, right: Parameters, l2: Scalar, classes: int, block_bytes: int) -> Parameters:
    preconditioner = make_preconditioner(some_of(rows, None), classes, l2, block_bytes)
    return solve_newton(in_blocks(rows, classes), at, right, preconditioner, l2, REDUCTION, MOST_PRODUCTS)


@jax.jit
def _damp(rows: Rows, at: Parameters, step: Parameters, slope: Float[Array, "p"], l2: Scalar) -> Float[Array, "p"]:
    return damping(in_blocks(rows, at.bias.shape[1]), at, step, slope, l2)
