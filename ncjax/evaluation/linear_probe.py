# SPDX-License-Identifier: Apache-2.0
"""A linear probe: multinomial logistic regression on frozen features, to convergence."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy.linalg import solve_triangular
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int32

from ncjax.distributed.sharding import ROWS, shard_map
from ncjax.errors import UserError
from ncjax.features.frames import framed
from ncjax.ops.products import matmul

CONSTANT = 4  # roundings of its mean: a feature that deviates less from it is constant
Points: TypeAlias = Float[Array, "n d"] | Float[np.ndarray, "n d"]


class LinearProbe(NamedTuple):
    """Linear classifiers of features as they are, one or `*p`, with the evidence that each is optimal.

    The scores of the classes are `(x - origin) W + b`.
    """

    weights: Float[Array, "*p d c"]
    bias: Float[Array, "*p c"]
    loss: Float[Array, "*p"]  # mean cross-entropy in nats plus the penalty
    gradient_norm: Float[Array, "*p"]  # of the preconditioned problem
    iterations: Int32[Array, "*p"]
    converged: Bool[Array, "*p"]
    origin: Float[Array, "d"] | Float[np.ndarray, "d"]  # the mean of the features; float64 where they are of NumPy

    def predict(self, features: Points) -> Int32[Array, "*p n"]:
        """The most probable class of each example, by each classifier."""
        if isinstance(features, np.ndarray):
            centred = jnp.asarray(features - np.asarray(self.origin, np.float64), jnp.float32)
            return _predict(self._replace(origin=jnp.zeros(centred.shape[1])), centred)
        return _predict(self, features)


def fit_linear_probe(
    features: Points,
    labels: Int32[Array, "*p n"] | Int32[np.ndarray, "*p n"],
    classes: int,
    *,
    weights: Float[Array, "n"] | Float[np.ndarray, "n"] | None = None,
    mesh: Mesh | None = None,
    l2: float | Float[Array, ""] = 1e-4,
    max_iterations: int = 1000,
    tol: float | Float[Array, ""] = 1e-4,
) -> LinearProbe:
    """Minimizes `mean_i -log softmax(z_i W + b)[y_i] + l2/2 |W|^2`, where `z` are the standardized features.

    The same as scikit-learn's `StandardScaler` and `LogisticRegression(C=1 / (n * l2))`. Solved by L-BFGS in the
    coordinates `V = L^T W`, `L L^T = S / 10 + l2 I` with `S` the correlation matrix of the features: there the problem
    is well conditioned, however collapsed the features are.

    Args:
        features: `n` examples; float64 of NumPy is centred before it is rounded to float32.
        labels: classes in `0..c-1`; with a leading axis, a probe for each labelling of the examples.
        classes: number of classes `c`.
        weights: of the examples, such as 0 for padding; None: all 1.
        mesh: over which the examples are sharded (`ncjax.distributed.sharding`); None: one device.
        l2: strength of the penalty on standardized weights; the bias is free.
        max_iterations: L-BFGS steps at most.
        tol: largest gradient norm that counts as converged.

    Returns:
        Weights and bias for the features as they are, with loss, gradient norm, iterations and whether it converged.

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
    options = {"weights": weights, "mesh": mesh, "l2": l2, "max_iterations": max_iterations, "tol": tol}
    if not isinstance(features, np.ndarray):
        return fit_in_frame(features, labels, classes, **options)
    rows = framed(features)
    found, frame = fit_in_frame(jnp.asarray(rows[:]), jnp.asarray(labels), classes, **options), rows.frame
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
    counted, count = (z, z.shape[0]) if weights is None else (z * weights[:, None], weights.sum())
    correlation = matmul(counted.T, z) / count
    lower = jnp.linalg.cholesky(0.1 * correlation + l2 * jnp.eye(z.shape[1]))
    whitened = _whitener(mesh)(lower, z)

    def weights_of(v: Array) -> Array:
        return solve_triangular(lower.T, v, lower=False)

    def solve(labels: Array) -> LinearProbe:
        def loss(parameters: tuple[Array, Array]) -> Array:
            v, bias = parameters
            logits = whitened @ v + bias[None, :]
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return _mean(cross_entropy, weights) + 0.5 * l2 * (weights_of(v) ** 2).sum()

        start = (jnp.zeros((z.shape[1], classes)), jnp.zeros(classes))
        (v, bias), value, norm, iterations = _lbfgs(loss, start, max_iterations, tol)
        found = weights_of(v) / std[:, None]
        return LinearProbe(found, bias, value, norm, iterations, norm <= tol, mean)

    found = solve(labels) if labels.ndim == 1 else lax.map(solve, labels)
    return found._replace(origin=mean)


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


def _whitener(mesh: Mesh | None) -> Callable[[Array, Array], Array]:
    """`L^-1` times each example; on each device its own, for XLA would gather all examples for it."""

    def whiten(lower: Array, z: Array) -> Array:
        return solve_triangular(lower, z.T, lower=True).T

    if mesh is None:
        return whiten
    sharded = PartitionSpec(ROWS)
    return shard_map(whiten, mesh=mesh, in_specs=(PartitionSpec(), sharded), out_specs=sharded)


def _lbfgs(
    loss: Callable[..., Array], start: tuple[Array, Array], max_iterations: int, tol: float | Array
) -> tuple[Any, ...]:
    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def norm_of(gradient: tuple[Array, Array]) -> Array:
        return jnp.sqrt((gradient[0] ** 2).sum() + (gradient[1] ** 2).sum())

    def unfinished(carry: tuple[Any, ...]) -> Array:
        _, _, _, norm, iteration = carry
        return (iteration == 0) | ((norm > tol) & (iteration < max_iterations))

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        parameters, state, _, _, iteration = carry
        value, gradient = value_and_grad(parameters, state=state)
        updates, state = solver.update(gradient, state, parameters, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(parameters, updates), state, value, norm_of(gradient), iteration + 1

    carry: tuple[Any, ...] = (start, solver.init(start), jnp.float32(0), jnp.float32(jnp.inf), jnp.int32(0))
    parameters, _, value, norm, iterations = lax.while_loop(unfinished, step, carry)
    return parameters, value, norm, iterations


@jax.jit
def _predict(probe: LinearProbe, features: Float[Array, "n d"]) -> Int32[Array, "*p n"]:
    logits = matmul(features - probe.origin[None, :], probe.weights) + probe.bias[..., None, :]
    return logits.argmax(axis=-1).astype(jnp.int32)
