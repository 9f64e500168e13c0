# SPDX-License-Identifier: Apache-2.0
"""Probes with closed forms: ridge regression, nearest neighbours, nearest mean of a few examples."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

from ncjax.collapse.statistics import at_least_one, split_nearest, squared_distances
from ncjax.evaluation.linear_probe import standardise
from ncjax.ops.linalg import solve_positive
from ncjax.ops.products import matmul

QUERIES = 256  # whose distances to all neighbours are held at once


class LinearMap(NamedTuple):
    """Scores of classes `(x - origin) W + b`; the largest wins."""

    origin: Float[Array, "d"]
    weights: Float[Array, "d c"]
    bias: Float[Array, "c"]

    def scores(self, features: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Of each class."""
        return matmul(features - self.origin[None, :], self.weights) + self.bias[None, :]

    def predict(self, features: Float[Array, "n d"]) -> Int32[Array, "n"]:
        """The class of the largest score."""
        return self.scores(features).argmax(axis=1).astype(jnp.int32)


@partial(jax.jit, static_argnames="classes")
def ridge_probe(
    features: Float[Array, "n d"], labels: Int32[Array, "n"], classes: int, *, alpha: float | Float[Array, ""] = 1.0
) -> LinearMap:
    """Least squares on -1 and 1 with penalty `alpha |W|^2` on standardised features; the intercept is free.

    The same as scikit-learn's `StandardScaler` and `RidgeClassifier(alpha)`.
    """
    z, mean, std = standardise(features)
    targets = 2 * jax.nn.one_hot(labels, classes, dtype=features.dtype) - 1
    offset = targets.mean(axis=0)
    gram = matmul(z.T, z) + alpha * jnp.eye(z.shape[1])
    right = matmul(z.T, targets - offset[None, :])
    weights = solve_positive(gram, right) / std[:, None]
    return LinearMap(mean, weights, offset)


@partial(jax.jit, static_argnames=("classes", "neighbours"))
def nearest_neighbours(
    train: Float[Array, "n d"], labels: Int32[Array, "n"], queries: Float[Array, "m d"], classes: int, neighbours: int
) -> Int32[Array, "m"]:
    """The commonest class among the nearest training examples (Euclidean), the smallest label among equals.

    The same as scikit-learn's `KNeighborsClassifier(neighbours)`. Queries are taken 256 at a time.
    """
    centre = train.mean(axis=0)
    train, queries = train - centre[None, :], queries - centre[None, :]
    means, present = _class_means(train, labels, classes)
    own = train - means[labels]
    along = matmul(own, means.T)
    along = (along - jnp.take_along_axis(along, labels[:, None], axis=1)).T
    squares, count = (own**2).sum(axis=1), queries.shape[0]
    blocks = -(-count // QUERIES)
    padded = jnp.pad(queries, ((0, blocks * QUERIES - count), (0, 0)))

    def vote(block: Array) -> Array:
        """`|x - y|^2` with `x = m + r` and `y = m' + r'`: no distance is a difference of much larger numbers."""
        residual, anchor = split_nearest(block, means, present)
        towards = squared_distances(residual, anchor, means, means)
        distances = towards[:, labels] - 2 * (along[anchor] + matmul(residual, own.T)) + squares[None, :]
        found = labels[lax.top_k(-distances, neighbours)[1]]
        return jax.nn.one_hot(found, classes).sum(axis=1).argmax(axis=1).astype(jnp.int32)

    return lax.map(vote, padded.reshape(blocks, QUERIES, -1)).reshape(-1)[:count]


def _class_means(
    features: Float[Array, "n d"], labels: Int32[Array, "n"], classes: int
) -> tuple[Float[Array, "c d"], Bool[Array, "c"]]:
    """Of each class, and which classes have examples."""
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    counts = member.sum(axis=0)
    return matmul(member.T, features) / at_least_one(counts)[:, None], counts > 0


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
    centre = train.mean(axis=0)
    train, test = train - centre[None, :], test - centre[None, :]
    anchors, present = _class_means(train, labels, classes)
    residual, anchor = split_nearest(test, anchors, present)

    def episode(key: Array) -> Array:
        order = jax.random.uniform(key, labels.shape)

        def mean(label: Array) -> Array:
            value, rows = lax.top_k(jnp.where(labels == label, order, -1.0), min(shots, labels.size))
            drawn = (value >= 0).astype(train.dtype)
            return matmul(drawn, train[rows]) / jnp.maximum(drawn.sum(), 1)

        distances = squared_distances(residual, anchor, anchors, lax.map(mean, jnp.arange(classes)))
        return (jnp.where(present[None, :], distances, jnp.inf).argmin(axis=1) == test_labels).mean()

    return lax.map(episode, jax.random.split(key, episodes))
