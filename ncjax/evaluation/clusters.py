# SPDX-License-Identifier: Apache-2.0
"""k-means inside the super-classes of several networks, in any view: reconstructed labels.

A (super-class, cluster) pair is a reconstructed label. All super-classes of all networks that merge the same number of
classes are problems of one program.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, Key

from ncjax.cluster import KMeansResult, sharded_kmeans
from ncjax.cluster.in_memory import kmeans_once
from ncjax.distributed.mesh import ROWS
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import gather_rows, shard_rows
from ncjax.errors import UserError
from ncjax.evaluation.views import Embedded, Group, find_view
from ncjax.ops.precision import double_precision
from ncjax.ops.xla import jit_by_size
from ncjax.storage.arrays import Rows

PLANE_POINTS = 2000  # of each super-class, in views that are planes; the others vote
NEIGHBOURS = 15  # whose clusters the others join


class Examples(NamedTuple):
    """Both splits of one network, `[_ d]`; of a missing test split there are no rows."""

    rows: Mapping[str, Rows]
    fine: Mapping[str, Int32[np.ndarray, "_"]]
    super_class: tuple[int, ...]  # coarse label of each fine class

    def owner(self, split: str) -> Int32[np.ndarray, "_"]:
        """The super-class of each example."""
        return np.asarray(self.super_class, np.int32)[self.fine[split]]


@dataclass(frozen=True, kw_only=True)
class ViewClusters:
    """Reconstructed labels of one network in one view: clusters inside super-classes, numbered over all of them."""

    train: Int32[np.ndarray, "n"]
    test: Int32[np.ndarray, "m"] | None  # None where the view cannot embed new points
    super_class: tuple[int, ...]  # of each cluster
    inertia: float
    embedding: Float32[np.ndarray, "n p"] | None = None  # of views that are planes; NaN for examples that only vote


class _Problem(NamedTuple):
    """A super-class of a network."""

    network: int
    train: Int32[np.ndarray, "_"]  # its rows
    test: Int32[np.ndarray, "_"]
    first: int  # number of its first cluster
    rank: int  # among the problems of the network with as many clusters


class _Batch(NamedTuple):
    """Super-classes that merge the same number of classes, padded to the size of the largest."""

    k: int
    problems: Sequence[_Problem]
    keys: Key[Array, "p"]
    groups: Group  # [p ...]


class _Solution(NamedTuple):
    """Clusters of a problem, numbered from 0."""

    problem: _Problem
    train: Int32[np.ndarray, "_"]
    test: Int32[np.ndarray, "_"] | None
    inertia: float
    plane: Float32[np.ndarray, "_ 2"] | None = None


def check_counts(examples: Examples) -> None:
    """Refuses super-classes with fewer training examples than classes.

    Raises:
        UserError: naming the first.
    """
    sizes = np.bincount(examples.super_class)
    counts = np.bincount(examples.owner("train"), minlength=len(sizes))
    if (counts < sizes).any():
        at = int((counts < sizes).argmax())
        raise UserError(f"super-class {at} has {counts[at]} training examples for {sizes[at]} classes; train on more")


def cluster_networks(
    networks: Sequence[Examples],
    views: Sequence[str],
    *,
    restarts: int = 10,
    seed: int = 0,
    mesh: Mesh | None = None,
    tell: Callable[[str], None] = lambda view: None,
) -> list[dict[str, ViewClusters]]:
    """k-means inside each super-class of each network, with as many clusters as it merges classes.

    Args:
        networks: with as many features each; of the true labels only the super-classes are used.
        views: names in `VIEWS`.
        restarts: of k-means.
        seed: of k-means.
        mesh: over which examples are sharded; None: one device.
        tell: called with the name of a view when it is done.

    Returns:
        Of each network its clusters by view.

    Raises:
        UserError: a view is unknown, or a super-class has fewer training examples than classes.
    """
    for examples in networks:
        check_counts(examples)
    batches, found = _batches(networks, seed, mesh), [dict[str, ViewClusters]() for _ in networks]
    for name in views:
        view, solutions = find_view(name), list[_Solution]()
        for batch in batches:
            if view.embed is not None:
                solutions += _solve(view.embed, batch, restarts, mesh)
            if view.plane is not None:
                solutions += _solve_planes(view.plane, networks, batch, restarts)
        for number, examples in enumerate(networks):
            found[number][name] = _joined(examples, [one for one in solutions if one.problem.network == number])
        tell(name)
    return found


def _batches(networks: Sequence[Examples], seed: int, mesh: Mesh | None) -> list[_Batch]:
    """All super-classes, those that merge as many classes together."""
    alike: dict[int, list[_Problem]] = {}
    for number, examples in enumerate(networks):
        sizes, ranks = np.bincount(examples.super_class), Counter[int]()
        for group in np.flatnonzero(sizes):
            train, test = (np.flatnonzero(examples.owner(split) == group) for split in ("train", "test"))
            k, first = int(sizes[group]), int(sizes[:group].sum())
            alike.setdefault(k, []).append(
                _Problem(number, train.astype(np.int32), test.astype(np.int32), first, ranks[k])
            )
            ranks[k] += 1
    return [_batch(networks, k, alike[k], jax.random.fold_in(jax.random.key(seed), k), mesh) for k in sorted(alike)]


def _batch(
    networks: Sequence[Examples], k: int, problems: Sequence[_Problem], key: Key[Array, ""], mesh: Mesh | None
) -> _Batch:
    ranks = np.array([one.rank for one in problems])
    train = gather_rows([(networks[one.network].rows["train"], one.train) for one in problems], mesh)
    test = gather_rows([(networks[one.network].rows["test"], one.test) for one in problems], mesh)
    weights = shard_rows(padded([np.ones(len(one.train), np.float32) for one in problems]), mesh, axis=1)
    groups = Group(train, weights, test)
    return _Batch(k, problems, jax.random.split(key, ranks.max() + 1)[ranks], groups)


def padded(parts: Sequence[np.ndarray]) -> np.ndarray:
    """`[p ...]`, as long as the longest, padded with 0."""
    whole = np.zeros((len(parts), max(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return whole


def _solve(embed: Callable[[Group], Embedded], batch: _Batch, restarts: int, mesh: Mesh | None) -> Iterator[_Solution]:
    with double_precision():
        embedded = _embed(embed, batch.groups)
    found = _kmeans(batch, embedded.train, batch.groups.weights, restarts, mesh)
    labels, tested, inertia = to_host((found.labels, _nearest(embedded.test, found.centroids), found.inertia))
    for i, one in enumerate(batch.problems):
        yield _Solution(one, labels[i, : len(one.train)], tested[i, : len(one.test)], float(inertia[i]))


def _kmeans(batch: _Batch, points: Array, weights: Array, restarts: int, mesh: Mesh | None) -> KMeansResult:
    if mesh is None:
        return kmeans_once(batch.keys, points, batch.k, weights=weights, restarts=restarts)
    return sharded_kmeans(batch.keys, points, batch.k, mesh=mesh, axis_name=ROWS, weights=weights, restarts=restarts)


@partial(jit_by_size, static_argnames="embed")
def _embed(embed: Callable[[Group], Embedded], groups: Group) -> Embedded:
    """One problem after the other, as float32."""

    def one(group: Group) -> Embedded:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), embed(group))

    return lax.map(one, groups)


@jax.jit
def _nearest(points: Float[Array, "p m d"], centroids: Float[Array, "p k d"]) -> Int32[Array, "p m"]:
    """The nearest centroid, from differences."""

    def distances(centroid: Array) -> Array:
        return ((points - centroid[:, None, :]) ** 2).sum(axis=-1)

    return lax.map(distances, centroids.swapaxes(0, 1)).argmin(axis=0).astype(jnp.int32)


def _solve_planes(
    embed: Callable[[np.ndarray], np.ndarray], networks: Sequence[Examples], batch: _Batch, restarts: int
) -> Iterator[_Solution]:
    """Some examples of each problem are embedded and clustered; the others vote."""
    points = [networks[one.network].rows["train"][one.train] for one in batch.problems]
    chosen = [chosen_for_plane(len(one.train), one.first) for one in batch.problems]
    planes = [embed(x[kept]).astype(np.float32) for x, kept in zip(points, chosen, strict=True)]
    weights = [np.ones(len(plane), np.float32) for plane in planes]
    found = _kmeans(batch, jnp.asarray(padded(planes)), jnp.asarray(padded(weights)), restarts, None)
    labels, inertia = to_host((found.labels, found.inertia))
    for i, (one, x, kept) in enumerate(zip(batch.problems, points, chosen, strict=True)):
        plane = np.full((len(x), 2), np.nan, np.float32)
        plane[kept] = planes[i]
        yield _Solution(one, _vote(x, kept, labels[i, : len(kept)]), None, float(inertia[i]), plane)


def chosen_for_plane(count: int, first: int) -> Int[np.ndarray, "q"]:
    """Places of the examples of a super-class that are embedded, drawn at random where they are many.

    Args:
        count: examples of the super-class.
        first: number of its first cluster.
    """
    return np.sort(np.random.default_rng(first).permutation(count)[:PLANE_POINTS])


def _vote(points: Float32[np.ndarray, "n d"], kept: np.ndarray, found: np.ndarray) -> Int32[np.ndarray, "n"]:
    """Every example joins the cluster of most of its nearest among those that are embedded, by their features."""
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(min(NEIGHBOURS, len(kept))).fit(points[kept], found)
    labels = voters.predict(points).astype(np.int32)
    labels[kept] = found
    return labels


def _joined(examples: Examples, solutions: Sequence[_Solution]) -> ViewClusters:
    """The clusters of one network, from those of its super-classes."""
    sizes, count = np.bincount(examples.super_class), len(examples.fine["train"])
    train, test = (np.full(len(examples.fine[name]), -1, np.int32) for name in ("train", "test"))
    plane = np.full((count, 2), np.nan, np.float32)
    for one in solutions:
        train[one.problem.train] = one.problem.first + one.train
        if one.test is not None:
            test[one.problem.test] = one.problem.first + one.test
        if one.plane is not None:
            plane[one.problem.train] = one.plane
    return ViewClusters(
        train=train,
        test=None if any(one.test is None for one in solutions) else test,
        super_class=tuple(int(group) for group in np.repeat(np.arange(sizes.size), sizes)),
        inertia=sum(one.inertia for one in solutions),
        embedding=plane if any(one.plane is not None for one in solutions) else None,
    )
