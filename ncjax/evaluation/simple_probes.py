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
GROUP = 16  # distances whose minimum is compared first, where they are many
EPISODES = 20  # of the few-shot probe


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
    anchors = _class_means(train, labels, classes)
    candidates, count = split_candidates(train, labels, anchors), queries.shape[0]
    blocks = -(-count // QUERIES)
    padded = jnp.pad(queries, ((0, blocks * QUERIES - count), (0, 0)))

    def vote(block: Array) -> Array:
        found = nearest_of(candidate_distances(block, candidates, anchors), neighbours)[1]
        return commonest(labels[found], classes)

    return lax.map(vote, padded.reshape(blocks, QUERIES, -1)).reshape(-1)[:count]


class Anchors(NamedTuple):
    """The means of the classes, and which classes have examples."""

    means: Float[Array, "c d"]
    present: Bool[Array, "c"]


class Candidates(NamedTuple):
    """Examples as the mean of their class plus a residual."""

    residual: Float[Array, "n d"]
    along: Float[Array, "c n"]  # product of each residual with the means, minus that with the mean of its class
    squares: Float[Array, "n"]  # of the lengths of the residuals
    labels: Int32[Array, "n"]


def split_candidates(train: Float[Array, "n d"], labels: Int32[Array, "n"], anchors: Anchors) -> Candidates:
    """Examples whose distances are wanted."""
    residual = train - anchors.means[labels]
    along = matmul(residual, anchors.means.T)
    along = (along - jnp.take_along_axis(along, labels[:, None], axis=1)).T
    return Candidates(residual, along, (residual**2).sum(axis=1), labels)


def candidate_distances(queries: Float[Array, "q d"], candidates: Candidates, anchors: Anchors) -> Float[Array, "q n"]:
    """`|x - y|^2` with `x = m + r` and `y = m' + r'`: no distance is a difference of much larger numbers."""
    residual, anchor = split_nearest(queries, *anchors)
    towards = squared_distances(residual, anchor, anchors.means, anchors.means)
    products = candidates.along[anchor] + matmul(residual, candidates.residual.T)
    return towards[:, candidates.labels] - 2 * products + candidates.squares[None, :]


def nearest_of(distances: Float[Array, "q n"], count: int) -> tuple[Float[Array, "q k"], Int32[Array, "q k"]]:
    """The `count` smallest distances of each query, in order, and where they are.

    They lie in the groups of the `count` smallest minima: every group with a smaller minimum holds a smaller distance.
    """
    q, n = distances.shape
    groups = -(-n // GROUP)
    if groups <= GROUP * count:
        least, index = lax.top_k(-distances, count)
        return -least, index
    padded = jnp.pad(distances, ((0, 0), (0, groups * GROUP - n)), constant_values=jnp.inf).reshape(q, GROUP, groups)
    chosen = lax.top_k(-padded.min(axis=1), count)[1]
    inside = jnp.take_along_axis(padded, chosen[:, None, :], axis=2).reshape(q, GROUP * count)
    least, place = lax.top_k(-inside, count)
    row, column = place // count, place % count
    return -least, row * groups + jnp.take_along_axis(chosen, column, axis=1)


def commonest(labels: Int32[Array, "q k"], classes: int) -> Int32[Array, "q"]:
    """The commonest label of each query, the smallest among equals."""
    return jax.nn.one_hot(labels, classes).sum(axis=1).argmax(axis=1).astype(jnp.int32)


def _class_means(features: Float[Array, "n d"], labels: Int32[Array, "n"], classes: int) -> Anchors:
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    counts = member.sum(axis=0)
    return Anchors(matmul(member.T, features) / at_least_one(counts)[:, None], counts > 0)


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
    episodes: int = EPISODES,
) -> Float[Array, "episodes"]:
    """All-way few-shot accuracy: each episode draws `shots` examples of each class; the nearest of their means wins.

    A class with fewer examples gives all that it has; one without gives none.
    """
    centre = train.mean(axis=0)
    train, test = train - centre[None, :], test - centre[None, :]
    anchors = _class_means(train, labels, classes)

    def episode(key: Array) -> Array:
        order = jax.random.uniform(key, labels.shape)

        def mean(label: Array) -> Array:
            value, rows = lax.top_k(jnp.where(labels == label, order, -1.0), min(shots, labels.size))
            drawn = (value >= 0).astype(train.dtype)
            return matmul(drawn, train[rows]) / jnp.maximum(drawn.sum(), 1)

        return (nearest_mean(test, anchors, lax.map(mean, jnp.arange(classes))) == test_labels).mean()

    return lax.map(episode, jax.random.split(key, episodes))


def nearest_mean(queries: Float[Array, "q d"], anchors: Anchors, means: Float[Array, "c d"]) -> Int32[Array, "q"]:
    """The class of the nearest of some means, of those that have examples."""
    residual, anchor = split_nearest(queries, *anchors)
    distances = squared_distances(residual, anchor, anchors.means, means)
    return jnp.where(anchors.present[None, :], distances, jnp.inf).argmin(axis=1).astype(jnp.int32)
