# SPDX-License-Identifier: Apache-2.0
"""k-means inside super-classes of features larger than memory, of several views in the same passes.

A sample of each super-class is clustered in memory. From there Lloyd's algorithm goes on over all rows, one pass a
step, for all super-classes and views together, until the centroids of each move as little as those in memory do at the
end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float64, Int, Int32, Key

from ncjax.cluster import kmeans
from ncjax.cluster.points import squared_norms
from ncjax.cluster.solver import LEAST_SHARE, MOST_DOUBT
from ncjax.collapse.reading import Block, Labelled, block_size, blocks
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.evaluation.clusters import padded
from ncjax.evaluation.views import ROUNDING
from ncjax.ops.precision import double_precision
from ncjax.ops.products import matmul
from ncjax.ops.sums import add_term, total_of, zero_sums

SAMPLE_ROWS = 1024  # for each cluster
LEAST_ROWS = 64  # for each cluster, however small the memory
COPIES = 6  # of the sample that its clustering holds
MOST_PASSES = 12  # of Lloyd's algorithm
TOL = 1e-4  # of the mean variance of the features of a super-class: that of `ncjax.kmeans`
BLOCK_BYTES = 2**23  # of features, read at once


class SuperClasses(NamedTuple):
    """The super-classes of a training split.

    Attributes:
        owner: super-class of each row.
        sizes: clusters of each super-class.
        means: of each super-class.
    """

    owner: Int32[np.ndarray, "n"]
    sizes: Int[np.ndarray, "g"]
    means: Float64[np.ndarray, "g d"]

    @property
    def of_clusters(self) -> Int32[np.ndarray, "k"]:
        """The super-class of each cluster; those of a super-class are neighbours."""
        return np.repeat(np.arange(len(self.sizes), dtype=np.int32), self.sizes)

    @property
    def clusters(self) -> Int32[np.ndarray, "g s"]:
        """The clusters of each super-class, padded with -1."""
        place, first = np.arange(self.sizes.max()), np.cumsum(self.sizes) - self.sizes
        return np.where(place < self.sizes[:, None], first[:, None] + place, -1).astype(np.int32)


class Found(NamedTuple):
    """The clusters of one view, numbered over all super-classes."""

    centroids: Float64[np.ndarray, "k d"]  # of the view
    train: Int32[np.ndarray, "n"]  # any for rows that do not count
    inertia: float
    converged: bool


class _Start(NamedTuple):
    centroids: Float64[np.ndarray, "k d"]
    limits: Float64[np.ndarray, "g"]  # squared movement at which a super-class has converged


class _Means(NamedTuple):
    """Means of super-classes, as the sum of two so that they are exact in float32."""

    high: Float[Array, "g d"]
    low: Float[Array, "g d"]


def cluster_streamed(
    key: Key[Array, ""],
    data: Labelled,
    groups: SuperClasses,
    views: Sequence[str],
    restarts: int,
    memory_bytes: int,
    mesh: Mesh | None = None,
) -> dict[str, Found]:
    """k-means in the views `raw` and `normalised`; an empty cluster keeps its centroid.

    Args:
        key: randomness of the sample's k-means.
        data: features; rows of weight 0 count nothing.
        groups: their super-classes, each with at least as many rows that count as clusters.
        views: which of the two.
        restarts: on the sample.
        memory_bytes: for the sample and its clustering.
        mesh: over which each block is sharded; None: one device.
    """
    starts = _starts(key, data, groups, views, restarts, memory_bytes)
    found = _refine(data, groups, starts, mesh)
    doubtful = {view: starts[view] for view, (_, sound) in found.items() if not sound}
    if doubtful:
        with double_precision():
            found |= _refine(data, groups, doubtful, mesh)
    return {view: one for view, (one, _) in found.items()}


def nearest_clusters(
    data: Labelled, groups: SuperClasses, centroids: Mapping[str, Float64[np.ndarray, "k d"]], mesh: Mesh | None = None
) -> dict[str, Int32[np.ndarray, "n"]]:
    """The nearest cluster of each row in its super-class, of each view; of a test split: `owner` is of its rows."""
    return {view: labels for view, (labels, _) in _labels(data, groups, centroids, mesh).items()}


# ------------------------------------------------------------------ where Lloyd's algorithm starts


def _starts(
    key: Array, data: Labelled, groups: SuperClasses, views: Sequence[str], restarts: int, memory_bytes: int
) -> dict[str, _Start]:
    index = sample_of_groups(groups, data.counts > 0, memory_bytes // (4 * data.rows.shape[1] * COPIES))
    rows, owner = np.asarray(data.rows[index], np.float32), groups.owner[index]
    means = _split(groups.means)
    return {
        view: _start(
            key, np.asarray(embed(view, jnp.asarray(rows), jnp.asarray(owner), means)), owner, groups, restarts
        )
        for view in views
    }


def sample_of_groups(groups: SuperClasses, present: Bool[np.ndarray, "n"], most: int) -> Int[np.ndarray, "m"]:
    """Row numbers in order: of each super-class at random, about `most` in all, in proportion to its clusters."""
    rng, each = np.random.default_rng(0), min(SAMPLE_ROWS, max(LEAST_ROWS, most // int(groups.sizes.sum())))
    drawn = []
    for group, size in enumerate(groups.sizes):
        rows = np.flatnonzero(present & (groups.owner == group))
        drawn.append(rng.choice(rows, min(len(rows), each * int(size)), replace=False))
    return np.sort(np.concatenate(drawn))


def _start(key: Array, embedded: np.ndarray, owner: np.ndarray, groups: SuperClasses, restarts: int) -> _Start:
    centroids = np.zeros((int(groups.sizes.sum()), embedded.shape[1]))
    limits, first = np.zeros(len(groups.sizes)), np.cumsum(groups.sizes) - groups.sizes
    for k in np.unique(groups.sizes[groups.sizes > 0]):
        alike = np.flatnonzero(groups.sizes == k)
        rows = [np.flatnonzero(owner == group) for group in alike]
        points, weights = (
            padded([embedded[own] for own in rows]),
            padded([np.ones(len(own), np.float32) for own in rows]),
        )
        keys = jax.random.split(jax.random.fold_in(key, int(k)), len(rows))
        found = kmeans(keys, jnp.asarray(points), int(k), weights=jnp.asarray(weights), restarts=restarts)
        for group, members, own in zip(alike, rows, np.asarray(found.centroids), strict=True):
            centroids[first[group] : first[group] + k] = own
            limits[group] = TOL * embedded[members].var(axis=0, dtype=np.float64).mean()
    return _Start(centroids, limits)


# ------------------------------------------------------------------ Lloyd's algorithm over all rows


def _refine(
    data: Labelled, groups: SuperClasses, starts: Mapping[str, _Start], mesh: Mesh | None
) -> dict[str, tuple[Found, bool]]:
    """The clusters of each view, and whether the precision was enough for it."""
    centroids = {view: start.centroids for view, start in starts.items()}
    done = dict.fromkeys(starts, groups.sizes == 0)
    for _ in range(MOST_PASSES):
        if all(converged.all() for converged in done.values()):
            break
        for view, means in _moved(data, groups, centroids, mesh).items():
            moved = np.where(done[view][groups.of_clusters][:, None], centroids[view], means)
            squares = ((moved - centroids[view]) ** 2).sum(axis=1)
            lengths = np.bincount(groups.of_clusters, squares, len(groups.sizes))
            done[view] = done[view] | (lengths <= starts[view].limits)
            centroids[view] = moved
    return {
        view: (
            Found(centroids[view], labels, float(ends.inertia), bool(done[view].all())),
            bool(ends.doubt <= MOST_DOUBT * ends.inertia and not 0 < ends.inertia < LEAST_SHARE * ends.around),
        )
        for view, (labels, ends) in _labels(data, groups, centroids, mesh).items()
    }


def _moved(
    data: Labelled, groups: SuperClasses, centroids: Mapping[str, np.ndarray], mesh: Mesh | None
) -> dict[str, Float64[np.ndarray, "k d"]]:
    """The means of the clusters by one pass; an empty one keeps its centroid."""
    near, means, clusters, sums = _on_device(centroids), _split(groups.means), jnp.asarray(groups.clusters), None
    for owner, block in _owned(data, groups.owner, mesh):
        found = _cluster_sums(block, owner, near, means, clusters)
        sums = _add(zero_sums(found) if sums is None else sums, found)
    found = total_of(to_host(sums))
    return {
        view: np.where(mass[:, None] > 0, total / np.maximum(mass, 1)[:, None], centroids[view])
        for view, (total, mass) in found.items()
    }


class _Ends(NamedTuple):
    """Sums over rows."""

    inertia: Any
    doubt: Any  # how much of it rounding may have put into a wrong cluster
    around: Any  # squared distances to the mean of the super-class


def _labels(
    data: Labelled, groups: SuperClasses, centroids: Mapping[str, np.ndarray], mesh: Mesh | None
) -> dict[str, tuple[Int32[np.ndarray, "n"], _Ends]]:
    near, means, clusters = _on_device(centroids), _split(groups.means), jnp.asarray(groups.clusters)
    parts: dict[str, list[tuple[np.ndarray, _Ends]]] = {view: [] for view in centroids}
    for owner, block in _owned(data, groups.owner, mesh):
        for view, one in to_host(_assign(block, owner, near, means, clusters)).items():
            parts[view].append(one)
    return {
        view: (
            np.concatenate([labels for labels, _ in found])[: len(data.fine)],
            _Ends(*(np.sum(column, dtype=np.float64) for column in zip(*(ends for _, ends in found), strict=True))),
        )
        for view, found in parts.items()
    }


def _owned(data: Labelled, owner: np.ndarray, mesh: Mesh | None) -> Iterator[tuple[Array, Block]]:
    """Blocks with the super-classes of their rows."""
    size = block_size(data, mesh.size if mesh else 1, BLOCK_BYTES)
    for place, block in enumerate(blocks(data, mesh, BLOCK_BYTES)):
        part = owner[place * size : (place + 1) * size]
        yield shard_rows(np.pad(part, (0, size - len(part))), mesh), block


def _on_device(centroids: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return {view: jnp.asarray(own) for view, own in centroids.items()}


def _split(means: Float64[np.ndarray, "g d"]) -> _Means:
    high = jnp.asarray(means)
    return _Means(high, jnp.asarray(means - np.asarray(high, np.float64)))


class _Centred(NamedTuple):
    """Rows around the mean of their super-class. In a view they are these times a rate."""

    rows: Float[Array, "b d"]
    rates: dict[str, Float[Array, "b"]]  # of each view

    def of_view(self, view: str) -> Float[Array, "b d"]:
        return self.rows * self.rates[view][:, None]


def _centred(views: Iterable[str], rows: Float[Array, "b d"], owner: Int32[Array, "b"], means: _Means) -> _Centred:
    centred = (rows - means.high[owner]) - means.low[owner]
    lengths, sizes = (jnp.sqrt(squared_norms(x)) for x in (centred, rows))
    sound = lengths > ROUNDING * sizes
    rates = {"raw": jnp.ones_like(lengths), "normalised": jnp.where(sound, 1 / jnp.where(sound, lengths, 1.0), 0.0)}
    return _Centred(centred, {view: rates[view] for view in views})


@partial(jax.jit, static_argnames="view")
def embed(view: str, rows: Float[Array, "b d"], owner: Int32[Array, "b"], means: _Means) -> Float[Array, "b d"]:
    """Rows in the view `raw` or `normalised`, both around the mean of their super-class."""
    return _centred((view,), rows, owner, means).of_view(view)


class _Near(NamedTuple):
    """The clusters of the own super-class of each row; as many columns as the largest super-class has clusters."""

    clusters: Int32[Array, "b s"]  # -1 behind the last
    scores: dict[str, Float[Array, "b s"]]  # half of the squared distance in each view, but for a number a row

    def labels(self, view: str) -> Int32[Array, "b"]:
        """The nearest cluster of each row."""
        best = self.scores[view].argmin(axis=1)
        return jnp.take_along_axis(self.clusters, best[:, None], axis=1)[:, 0]


def _near(
    points: _Centred, owner: Int32[Array, "b"], centroids: dict[str, Array], clusters_of: Int32[Array, "g s"]
) -> _Near:
    """One product for all views."""
    k, clusters = len(next(iter(centroids.values()))), clusters_of[owner]
    products = matmul(points.rows, jnp.concatenate(list(centroids.values())).T)
    scores = {}
    for place, (view, own) in enumerate(centroids.items()):
        along = jnp.take_along_axis(products, jnp.maximum(clusters, 0) + place * k, axis=1)
        found = squared_norms(own)[clusters] / 2 - points.rates[view][:, None] * along
        scores[view] = jnp.where(clusters >= 0, found, jnp.inf)
    return _Near(clusters, scores)


@jax.jit
def _cluster_sums(
    block: Block, owner: Int32[Array, "b"], centroids: dict[str, Array], means: _Means, clusters_of: Int32[Array, "g s"]
) -> dict[str, tuple[Float[Array, "k d"], Float[Array, "k"]]]:
    """Sum and number of the rows of each cluster, by view."""
    points, present = _centred(centroids, block.features, owner, means), block.weights > 0
    near, numbers = _near(points, owner, centroids, clusters_of), jnp.arange(len(next(iter(centroids.values()))))
    members = [(near.labels(view)[:, None] == numbers[None, :]) & present[:, None] for view in centroids]
    rates = [jnp.where(own, points.rates[view][:, None], 0.0) for view, own in zip(centroids, members, strict=True)]
    sums = jnp.split(matmul(jnp.concatenate(rates, axis=1).T, points.rows), len(rates))
    masses = [own.sum(axis=0, dtype=points.rows.dtype) for own in members]
    return {view: (total, mass) for view, total, mass in zip(centroids, sums, masses, strict=True)}


@jax.jit
def _assign(
    block: Block, owner: Int32[Array, "b"], centroids: dict[str, Array], means: _Means, clusters_of: Int32[Array, "g s"]
) -> dict[str, tuple[Int32[Array, "b"], _Ends]]:
    """Labels; inertia from differences; rounding where the two nearest centroids are about as near."""
    points, present = _centred(centroids, block.features, owner, means), block.weights > 0
    near, found = _near(points, owner, centroids, clusters_of), {}
    for view, own in centroids.items():
        rows, scores, labels = points.of_view(view), near.scores[view], near.labels(view)
        second = jnp.where(near.clusters == labels[:, None], jnp.inf, scores).min(axis=1)
        lengths = squared_norms(rows)
        error = 4 * jnp.finfo(rows.dtype).eps * (lengths + squared_norms(own).max())
        doubt = jnp.where(2 * (second - scores.min(axis=1)) < error, error, 0.0)
        columns = squared_norms(rows - own[labels]), doubt, lengths
        found[view] = labels, _Ends(*(jnp.where(present, column, 0.0).sum() for column in columns))
    return found


_add = jax.jit(add_term, donate_argnums=0)
