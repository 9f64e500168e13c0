# SPDX-License-Identifier: Apache-2.0
"""A linear probe: multinomial logistic regression on frozen features, to convergence."""

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Int32

from ncjax.distributed.sharding import ROWS, shard_map
from ncjax.errors import UserError
from ncjax.evaluation.logistic_loss import Parameters, Rows, in_blocks
from ncjax.evaluation.probe_solver import Optimum, diagonal_preconditioner, make_preconditioner, minimise
from ncjax.features.frames import framed
from ncjax.ops.linalg import one_thread_each
from ncjax.ops.products import matmul
from ncjax.storage.arrays import takes_tensors

CONSTANT = 4  # roundings of its mean: a feature that deviates less from it is constant
SAMPLE_ROWS = 4096  # of the preconditioner, and of the problem whose optimum is the start
FEWEST_SAMPLES = 4  # as many times more rows there are where a sample is taken
SAMPLE_TOL = 1e-3  # nats
GOLDEN_RATIO = 0.6180339887  # multiples of it, modulo 1, fill [0, 1) evenly
Points: TypeAlias = Float[Array, "n d"] | Float[np.ndarray, "n d"]


class LinearProbe(NamedTuple):
    """Linear classifiers of features as they are, one or `*p`, with the evidence that each is optimal.

    The scores of the classes are `(x - origin) W + b`.
    """

    weights: Float[Array, "*p d c"]
    bias: Float[Array, "*p c"]
    loss: Float[Array, "*p"]  # mean cross-entropy in nats plus the penalty
    gradient_norm: Float[Array, "*p"]  # by standardized weights and the bias
    suboptimality: Float[Array, "*p"]  # an estimate of how far the loss is above the least one, in nats
    iterations: Int32[Array, "*p"]  # passes over the examples, for all labellings together
    converged: Bool[Array, "*p"]
    origin: Float[Array, "d"] | Float[np.ndarray, "d"]  # the mean of the features; float64 where they are of NumPy

    @takes_tensors
    def predict(self, features: Points) -> Int32[Array, "*p n"]:
        """The most probable class of each example, by each classifier."""
        if isinstance(features, np.ndarray):
            centred = jnp.asarray(features - np.asarray(self.origin, np.float64), jnp.float32)
            return _predict(self._replace(origin=jnp.zeros(centred.shape[1])), centred)
        return _predict(self, features)


@takes_tensors
def fit_linear_probe(
    features: Points,
    labels: Int[Array, "*p n"] | Int[np.ndarray, "*p n"],
    classes: int,
    *,
    weights: Float[Array, "n"] | Float[np.ndarray, "n"] | None = None,
    mesh: Mesh | None = None,
    l2: float | Float[Array, ""] = 1e-4,
    max_iterations: int = 1000,
    tol: float | Float[Array, ""] = 1e-5,
) -> LinearProbe:
    """Minimizes `mean_i -log softmax(z_i W + b)[y_i] + l2/2 |W|^2`, where `z` are the standardized features.

    The same as scikit-learn's `StandardScaler` and `LogisticRegression(C=1 / (n * l2))`. Solved by Newton's method with
    conjugate gradients (`ncjax.evaluation.probe_solver`); all labellings share each pass over the examples.

    Args:
        features: `n` examples, of JAX, NumPy or PyTorch; float64 outside JAX is centred before it is rounded to
            float32.
        labels: classes in `0..c-1`; with a leading axis, a probe for each labelling of the examples.
        classes: number of classes `c`.
        weights: of the examples, such as 0 for padding; None: all 1.
        mesh: over which the examples are sharded (`ncjax.distributed.sharding`); None: one device.
        l2: strength of the penalty on standardized weights; the bias is free.
        max_iterations: passes over the examples at most.
        tol: estimated suboptimality at which a probe has converged [nats].

    Returns:
        Weights and bias for the features as they are, with loss, gradient norm, suboptimality, passes and
        whether it converged.

    Raises:
        UserError: a label is out of `0..c-1`; not checked inside `jit`.

    Example:
        >>> labels = jnp.arange(30, dtype=jnp.int32) % 3
        >>> points = jnp.eye(3)[labels]
        >>> probe = fit_linear_probe(points, labels, 3)
        >>> bool((probe.predict(points) == labels).all())
        True
    """
    _check_labels(labels, classes)
    labels = jnp.asarray(labels, jnp.int32)
    options: dict[str, Any] = {"weights": weights, "mesh": mesh, "l2": l2, "max_iterations": max_iterations, "tol": tol}
    if isinstance(features, jax.core.Tracer):
        return fit_in_frame(features, labels, classes, **options)
    if not isinstance(features, np.ndarray):
        with one_thread_each():
            return jax.block_until_ready(fit_in_frame(features, labels, classes, **options))
    rows = framed(features)
    frame, found = rows.frame, fit_linear_probe(jnp.asarray(rows[:]), labels, classes, **options)
    origin = frame.origin + frame.scale * np.asarray(found.origin, np.float64)
    return found._replace(origin=origin, weights=found.weights / frame.scale)


def _check_labels(labels: Any, classes: int) -> None:
    if isinstance(labels, jax.core.Tracer):
        return
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise UserError(f"label {wrong} of the probe is out of range: there are {classes} classes, 0 to {classes - 1}")


@partial(jax.jit, static_argnames=("classes", "max_iterations", "mesh"))
def fit_in_frame(
    features: Float[Array, "n d"],
    labels: Int32[Array, "*p n"],
    classes: int,
    *,
    weights: Float[Array, "n"] | None,
    mesh: Mesh | None,
    l2: float | Float[Array, ""],
    max_iterations: int,
    tol: float | Float[Array, ""],
) -> LinearProbe:
    """`fit_linear_probe` of features for which float32 is long enough; one program."""
    z, mean, std = standardise(features, weights)
    shares = jnp.full(z.shape[0], 1 / z.shape[0], z.dtype) if weights is None else weights / weights.sum()
    rows = Rows(z, labels if labels.ndim == 2 else labels[None, :], shares)
    found = solve(rows, classes, l2, tol, max_iterations, mesh)
    weights_of = found.parameters.weights.mT / std[:, None][None]
    fields = weights_of, found.parameters.bias, found.loss, found.gradient_norm, found.suboptimality
    passes = jnp.full(found.converged.shape, found.passes)
    probes = LinearProbe(*fields, iterations=passes, converged=found.converged, origin=mean)
    one = jax.tree.map(lambda leaf: leaf[0], probes)._replace(origin=mean)
    return probes if labels.ndim == 2 else one


def solve(
    rows: Rows,
    classes: int,
    l2: Array | float,
    tol: Array | float,
    most: int,
    mesh: Mesh | None,
    block_bytes: int | None = None,
) -> Optimum:
    """The optimum of every labelling; where rows are many, from that of a sample, whose penalty is larger."""
    (p, n), d = rows.labels.shape, rows.features.shape[1]
    start, sample = Parameters(jnp.zeros((p, classes, d)), jnp.zeros((p, classes))), some_of(rows, mesh)
    if sample is not rows:
        stronger = l2 * n / SAMPLE_ROWS
        near = minimise(
            in_blocks(sample, classes, whole=mesh is not None),
            start,
            diagonal_preconditioner(sample, classes, stronger),
            stronger,
            SAMPLE_TOL,
            most,
        )
        start = near.parameters
    blocks = in_blocks(rows, classes, whole=mesh is not None)
    return minimise(blocks, start, make_preconditioner(sample, classes, l2, block_bytes), l2, tol, most)


def some_of(rows: Rows, mesh: Mesh | None) -> Rows:
    """The rows that a preconditioner is of: a sample where they are many."""
    return rows if rows.labels.shape[1] < FEWEST_SAMPLES * SAMPLE_ROWS else _sample(rows, mesh)


def _sample(rows: Rows, mesh: Mesh | None) -> Rows:
    """A row of each of as many equal parts, of every device alike; which of a part, follows no period."""

    def take(features: Array, labels: Array, shares: Array) -> tuple[Array, Array, Array]:
        count, n = SAMPLE_ROWS // (1 if mesh is None else mesh.shape[ROWS]), features.shape[0]
        part = jnp.arange(count, dtype=jnp.float32)
        index = jnp.minimum(((part + part * GOLDEN_RATIO % 1) * (n / count)).astype(jnp.int32), n - 1)
        return features[index], labels[:, index], shares[index]

    if mesh is not None:
        specs = PartitionSpec(ROWS), PartitionSpec(None, ROWS), PartitionSpec(ROWS)
        take = shard_map(take, mesh=mesh, in_specs=specs, out_specs=specs)
    features, labels, shares = take(rows.features, rows.labels, rows.shares)
    total = jnp.maximum(shares.sum(), jnp.finfo(shares.dtype).tiny)  # weights may be 0 in all rows of it
    return Rows(features, labels, shares / total)


class Standardised(NamedTuple):
    """Features minus their mean, over their standard deviation; 0 for a feature that is constant."""

    features: Float[Array, "n d"]
    mean: Float[Array, "d"]
    std: Float[Array, "d"]  # 1 for a feature that is constant


def standardise(features: Float[Array, "n d"], weights: Float[Array, "n"] | None = None) -> Standardised:
    """Each feature by itself, whatever the scales of the others.

    Args:
        features: `n` examples.
        weights: of the examples; None: all 1.
    """
    mean = _mean(features, weights)
    mean += _mean(features - mean[None, :], weights)
    apart = features - mean[None, :]
    counted = apart if weights is None else jnp.where(weights[:, None] > 0, apart, 0.0)
    largest = jnp.abs(counted).max(axis=0)
    constant = largest <= CONSTANT * jnp.finfo(features.dtype).eps * jnp.abs(mean)
    largest = jnp.where(constant, 1.0, largest)
    std = largest * jnp.sqrt(_mean((counted / largest[None, :]) ** 2, weights))
    std = jnp.where(constant, 1.0, std)
    return Standardised(jnp.where(constant[None, :], 0.0, apart / std[None, :]), mean, std)


def _mean(values: Array, weights: Array | None) -> Array:
    return values.mean(axis=0) if weights is None else matmul(weights, values) / weights.sum()


@jax.jit
def _predict(probe: LinearProbe, features: Float[Array, "n d"]) -> Int32[Array, "*p n"]:
    logits = matmul(features - probe.origin[None, :], probe.weights) + probe.bias[..., None, :]
    return logits.argmax(axis=-1).astype(jnp.int32)
