# SPDX-License-Identifier: Apache-2.0
"""Probes with closed forms: ridge regression, nearest neighbours, nearest mean of a few examples."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Key

from ncjax.ops.products import matmul

QUERIES = 256  # whose distances to all neighbours are held at once


class LinearMap(NamedTuple):
    """Scores of classes `x W + b`; the largest wins."""

    weights: Float[Array, "d c"]
    bias: Float[Array, "c"]

    def predict(self, features: Float[Array, "n d"]) -> Int32[Array, "n"]:
        """The class of the largest score."""
        scores = matmul(features, self.weights) + self.bias[None, :]
        return scores.argmax(axis=1).astype(jnp.int32)


@partial(jax.jit, static_argnames="classes")
def ridge_probe(
    features: Float[Array, "n d"], labels: Int32[Array, "n"], classes: int, *, alpha: float | Float[Array, ""] = 1.0
) -> LinearMap:
    """Least squares on -1 and 1 with penalty `alpha |W|^2` on standardised features; the intercept is free.

    The same as scikit-learn's `StandardScaler` and `RidgeClassifier(alpha)`.
    """
    mean, std = features.mean(axis=0), features.std(axis=0)
    std = jnp.where(std > 1e-6 * std.max(), std, 1.0)
    z = (features - mean[None, :]) / std[None, :]
    targets = 2 * jax.nn.one_hot(labels, classes, dtype=features.dtype) - 1
    offset = targets.mean(axis=0)
    gram = matmul(z.T, z) + alpha * jnp.eye(z.shape[1])
    right = matmul(z.T, targets - offset[None, :])
    weights = jax.scipy.linalg.solve(gram, right, assume_a="pos") / std[:, None]
    return LinearMap(weights, offset - matmul(mean, weights))


@partial(jax.jit, static_argnames=("classes", "neighbours"))
def nearest_neighbours(
    train: Float[Array, "n d"], labels: Int32[Array, "n"], queries: Float[Array, "m d"], classes: int, neighbours: int
) -> Int32[Array, "m"]:
    """The commonest class among the nearest training examples (Euclidean), the smallest label among equals.

    The same as scikit-learn's `KNeighborsClassifier(neighbours)`. Queries are taken 256 at a time.
    """
    centre = train.mean(axis=0)
    train = train - centre[None, :]
    squares = (train**2).sum(axis=1)
    count = queries.shape[0]
    blocks = -(-count // QUERIES)
    padded = jnp.pad(queries - centre[None, :], ((0, blocks * QUERIES - count), (0, 0)))

    def vote(block: Array) -> Array:
        nearness = 2 * matmul(block, train.T) - squares[None, :]
        found = labels[lax.top_k(nearness, neighbours)[1]]
        return jax.nn.one_hot(found, classes).sum(axis=1).argmax(axis=1).astype(jnp.int32)

    return lax.map(vote, padded.reshape(blocks, QUERIES, -1)).reshape(-1)[:count]


@partial(jax.jit, static_argnames=("classes", "shots", "episodes"))
def few_shot(
    key: Key[Array, ""],
    train: Float[Array, "n d"],
    labels: Int32[Array, "n"],
    test: Float[Array, "m d"],
    test_labels: Int32[Array, "m"],
    classes: int,
    *,
    shots: int = 5,
    episodes: int = 20,
) -> Float[Array, "episodes"]:
    """All-way few-shot accuracy: each episode draws `shots` examples of each class; the nearest of their means wins.

    A class with fewer examples gives all that it has; one without gives none.
    """

    def episode(key: Array) -> Array:
        order = jax.random.uniform(key, labels.shape)

        def mean(label: Array) -> Array:
            value, rows = lax.top_k(jnp.where(labels == label, order, -1.0), min(shots, labels.size))
            drawn = (value >= 0).astype(train.dtype)
            return jnp.where(drawn.sum() > 0, drawn @ train[rows] / jnp.maximum(drawn.sum(), 1), jnp.inf)

        means = lax.map(mean, jnp.arange(classes))
        usable = jnp.isfinite(means[:, 0])
        means = jnp.where(usable[:, None], means, 0.0)
        nearness = 2 * matmul(test, means.T) - (means**2).sum(axis=1)[None, :]
        return (jnp.where(usable[None, :], nearness, -jnp.inf).argmax(axis=1) == test_labels).mean()

    return lax.map(episode, jax.random.split(key, episodes))
