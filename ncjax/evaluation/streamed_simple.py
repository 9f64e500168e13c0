# SPDX-License-Identifier: Apache-2.0
"""The probes of `ncjax.evaluation.simple_probes` for features larger than memory."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax
from jaxtyping import Array, Float, Float32, Float64, Int, Int32, Key

from ncjax.collapse.reading import Block, Labelled, blocks
from ncjax.distributed.processes import gather_each, sum_over_processes
from ncjax.evaluation.simple_probes import (
    EPISODES,
    QUERIES,
    Anchors,
    LinearMap,
    candidate_distances,
    commonest,
    nearest_mean,
    nearest_of,
    split_candidates,
)
from ncjax.evaluation.streamed_moments import ClassMeans, Scaling, scaling_of

NEIGHBOUR_BYTES = 2**25  # of a block of training examples that are compared with all queries
QUERIES_SHARE = 1 / 4  # of the memory: for queries that one pass serves


def streamed_ridge(
    of_classes: ClassMeans, products: Float64[np.ndarray, "d d"], scaling: Scaling, alpha: float = 1.0
) -> LinearMap:
    """`ridge_probe` from moments, in float64: `(Z^T Z + alpha I)^-1 Z^T Y`.

    Args:
        of_classes: counts and means of the classes.
        products: `X^T X` around the mean of all rows.
        scaling: by which features are standardised.
        alpha: of the penalty.
    """
    rate, total = scaling.varies / scaling.std, of_classes.counts.sum()
    gram = products * rate[:, None] * rate[None, :] + alpha * np.eye(len(rate))
    right = 2 * (of_classes.counts[:, None] * (of_classes.means - of_classes.mean) * rate).T
    weights = scipy.linalg.solve(gram, right, assume_a="pos") * rate[:, None]
    offset = 2 * of_classes.counts / total - 1
    return LinearMap(*(jnp.asarray(x, jnp.float32) for x in (scaling.mean, weights, offset)))


class Simple(NamedTuple):
    """Test accuracies of the probes that need no iterations."""

    ridge: float
    nearest: float
    few_shot: Float64[np.ndarray, "e"]  # of each episode


def simple_probes(
    key: Key[Array, ""],
    train: Labelled,
    test: Labelled,
    of_classes: ClassMeans,
    products: Float64[np.ndarray, "d d"],
    *,
    neighbours: int,
    shots: int,
    memory_bytes: int,
) -> Simple:
    """All of them, with rows read a block at a time; each of several processes reads its share.

    Args:
        key: of the draws of the few-shot probe.
        train: examples; of the same frame as those of `test`.
        test: examples on which accuracies are measured.
        of_classes: counts and means of the classes of the training rows.
        products: `X^T X` around the mean of all training rows.
        neighbours: that vote.
        shots: of each class.
        memory_bytes: for the queries of the neighbours.
    """
    scaling, right = scaling_of(of_classes, np.diag(products)), test.fine[test.counts > 0]
    nearest = np.concatenate(list(streamed_neighbours(train, test, of_classes, neighbours, memory_bytes)))
    return Simple(
        accuracy_of(streamed_ridge(of_classes, products, scaling), test),
        float((nearest == right).mean()),
        streamed_few_shot(key, train, test, of_classes, shots),
    )


def anchors_of(of_classes: ClassMeans) -> tuple[Float32[np.ndarray, "d"], Anchors]:
    """The mean of all rows, and those of the classes around it."""
    centre = of_classes.mean.astype(np.float32)
    means = np.where(of_classes.counts[:, None] > 0, of_classes.means - centre, 0)
    return centre, Anchors(jnp.asarray(means, jnp.float32), jnp.asarray(of_classes.counts > 0))


class _Nearest(NamedTuple):
    """The nearest training examples so far."""

    distances: Float[Array, "g q k"]
    labels: Int32[Array, "g q k"]


def streamed_neighbours(
    train: Labelled, test: Labelled, of_classes: ClassMeans, neighbours: int, memory_bytes: int
) -> Iterator[Int32[np.ndarray, "_"]]:
    """`nearest_neighbours` of the test rows that count, in order: one pass over the training rows for as many as fit.

    Each of several processes finds the nearest among its share of the training rows.

    Args:
        train: the neighbours.
        test: the queries.
        of_classes: counts and means of the classes of the training rows.
        neighbours: how many vote.
        memory_bytes: for the queries.
    """
    kept, (_, d) = np.flatnonzero(test.counts > 0), test.rows.shape
    most = max(QUERIES, int(QUERIES_SHARE * memory_bytes) // (4 * d) // QUERIES * QUERIES)
    (centre, anchors), classes = anchors_of(of_classes), len(of_classes.counts)
    for first in range(0, len(kept), most):
        index = kept[first : first + most]
        groups = -(-len(index) // QUERIES)
        queries = np.zeros((groups * QUERIES, d), np.float32)
        queries[: len(index)] = np.asarray(test.rows[index], np.float32) - centre
        grouped = jnp.asarray(queries.reshape(groups, QUERIES, d))
        empty = jnp.full((groups, QUERIES, neighbours), jnp.inf)
        found = _Nearest(empty, jnp.zeros(empty.shape, jnp.int32))
        for block in blocks(train.own_part(), None, NEIGHBOUR_BYTES):
            found = _nearer(found, grouped, block, centre, anchors)
        votes = commonest(jnp.asarray(_nearest_of_all(found).reshape(-1, neighbours)), classes)
        yield np.asarray(votes)[: len(index)]


def _nearest_of_all(found: _Nearest) -> Int32[np.ndarray, "g q k"]:
    """The labels of the nearest of all processes."""
    count = found.labels.shape[2]
    distances, labels = (np.concatenate(gather_each(np.asarray(part)), axis=2) for part in found)
    return np.take_along_axis(labels, np.argsort(distances, axis=2, kind="stable")[:, :, :count], axis=2)


@partial(jax.jit, donate_argnames="found")
def _nearer(
    found: _Nearest, queries: Float[Array, "g q d"], block: Block, centre: Float[Array, "d"], anchors: Anchors
) -> _Nearest:
    """The nearest of those found before and of a block."""
    candidates = split_candidates(block.features - centre[None, :], block.fine, anchors)
    count = found.distances.shape[2]

    def merge(one: tuple[Array, _Nearest]) -> _Nearest:
        own, before = one
        distances = jnp.where(block.weights[None, :] > 0, candidate_distances(own, candidates, anchors), jnp.inf)
        least, index = nearest_of(distances, min(count, distances.shape[1]))
        both = jnp.concatenate([before.distances, least], axis=1)
        least, place = lax.top_k(-both, count)
        labels = jnp.concatenate([before.labels, block.fine[index]], axis=1)
        return _Nearest(-least, jnp.take_along_axis(labels, place, axis=1))

    return lax.map(merge, (queries, found))


def drawn_shots(
    key: Key[Array, ""], labels: Int32[np.ndarray, "n"], classes: int, shots: int, episodes: int = EPISODES
) -> list[list[Int[np.ndarray, "_"]]]:
    """The examples that `few_shot` draws of each class in each episode: it depends on the labels alone."""
    of_class = [np.flatnonzero(labels == label) for label in range(classes)]
    drawn = []
    for one in jax.random.split(key, episodes):
        order = np.asarray(jax.random.uniform(one, labels.shape))
        drawn.append([own[np.argsort(-order[own], kind="stable")[:shots]] for own in of_class])
    return drawn


def streamed_few_shot(
    key: Key[Array, ""], train: Labelled, test: Labelled, of_classes: ClassMeans, shots: int
) -> Float64[np.ndarray, "episodes"]:
    """`few_shot`: the rows that are drawn are read, and the test rows a block at a time.

    Args:
        key: of the draws.
        train: of whose rows those that count are drawn.
        test: the queries.
        of_classes: counts and means of the classes of the training rows.
        shots: examples of each class.
    """
    kept, (centre, anchors) = np.flatnonzero(train.counts > 0), anchors_of(of_classes)
    drawn = drawn_shots(key, train.fine[kept], len(of_classes.counts), shots)
    means = np.zeros((len(drawn), *anchors.means.shape), np.float32)
    for of_episode, rows in zip(means, drawn, strict=True):
        index = kept[np.concatenate(rows)]
        features = np.asarray(train.rows[index], np.float32) - centre
        for mean, own in zip(of_episode, np.split(features, np.cumsum([len(one) for one in rows])[:-1]), strict=True):
            mean[:] = own.mean(axis=0) if len(own) else 0
    hits = np.zeros(len(drawn))  # a process may have no test row
    for block in blocks(test.own_part()):
        hits += np.asarray(_hits(jnp.asarray(means), block, centre, anchors))
    return sum_over_processes(hits) / (test.counts > 0).sum()


@jax.jit
def _hits(means: Float[Array, "e c d"], block: Block, centre: Array, anchors: Anchors) -> Float[Array, "e"]:
    """Rows of a block whose nearest mean is that of their class, by episode."""
    rows = block.features - centre[None, :]
    present = block.weights > 0
    return lax.map(lambda own: ((nearest_mean(rows, anchors, own) == block.fine) & present).sum(), means) + 0.0


def accuracy_of(classifier: LinearMap, test: Labelled) -> float:
    """The share of the rows that count whose largest score is that of their class."""
    hits = sum((float(_linear_hits(classifier, block)) for block in blocks(test.own_part())), 0.0)
    return float(sum_over_processes(np.array(hits))) / float((test.counts > 0).sum())


@jax.jit
def _linear_hits(classifier: LinearMap, block: Block) -> Float[Array, ""]:
    return ((classifier.predict(block.features) == block.fine) & (block.weights > 0)).sum() + 0.0
