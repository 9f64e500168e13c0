# SPDX-License-Identifier: Apache-2.0
"""Every measure of collapse and of what is left inside super-classes, for one split of any features.

Two readings of the features a block at a time: moments, then what needs each example beside them (silhouettes, NC4).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from ncjax.collapse.neural_collapse import (
    Collapse,
    Geometry,
    Spectrum,
    cdnv,
    class_distances,
    covariance_rank,
    geometry,
    nc1,
    spectrum,
)
from ncjax.collapse.statistics import HIGHEST, ClassStatistics, class_statistics, merge, merge_classes
from ncjax.collapse.within import (
    Distances,
    Explained,
    Intraclass,
    Silhouettes,
    cosine_spread,
    explained_variance,
    intraclass,
    siblings,
    silhouette_sums,
    squared_distances,
    summarise_distances,
    unit_sums,
)
from ncjax.cluster.streamed import Rows
from ncjax.distributed.sharding import shard_rows, to_first
from ncjax.distributed.processes import to_host

BLOCK_BYTES = 2**22  # read at a time for each device: small enough for a processor's cache
MOST_FEATURES = 2048  # of whose covariance all eigenvalues are found
SPREAD_ROWS = 2000  # of each super-class, for c4


class Classifier(NamedTuple):
    """A linear classifier `x -> W x + b` of coarse or of fine classes."""

    weights: Float[Array, "k d"]
    bias: Float[Array, "k"]


class Labelled(NamedTuple):
    """Features `[n d]`, in memory or on disk, with their fine labels."""

    rows: Rows
    fine: Int32[np.ndarray, "n"]
    weights: Float[np.ndarray, "n"] | None = None  # how often each example counts; none: once

    @property
    def counts(self) -> Float[np.ndarray, "n"]:
        """How often each example counts."""
        return np.ones(len(self.fine), np.float32) if self.weights is None else self.weights


class Block(NamedTuple):
    """Some examples; the last block is filled up with weight 0."""

    features: Float[Array, "b d"]
    fine: Int32[Array, "b"]
    weights: Float[Array, "b"]


class Moments(NamedTuple):
    """What the first reading keeps; that of two blocks is merged."""

    fine: ClassStatistics
    units: Float[Array, "f d"]  # sums of unit vectors


class Level(NamedTuple):
    """Collapse to one set of labels."""

    collapse: Collapse
    separation: Float[Array, ""]  # fuzziness tr(S_W S_B^+), as He and Su (2023) follow it through layers
    cdnv: Float[Array, ""]
    spectrum: Spectrum
    geometry: Geometry


class Within(NamedTuple):
    """The fine classes inside super-classes."""

    distances: Distances
    explained: Explained
    silhouette: Float[Array, ""]  # squared Euclidean distance; mean over examples with siblings
    silhouette_cosine: Float[Array, ""]
    intraclass: Intraclass
    c2: Float[Array, ""]  # median over fine classes of the mean cosine silhouette
    c4: Float[Array, ""]


class Split(NamedTuple):
    """All measures of one split; NaN where one has no meaning."""

    coarse: Level
    fine: Level
    within: Within
    effective_rank: Float[Array, ""]  # of the covariance of all examples
    class_distances: Float[Array, "f f"]


def blocks(data: Labelled, mesh: Mesh | None = None) -> Iterator[Block]:
    """Blocks of examples in memory or on disk; the next is read meanwhile. What has weight 0 becomes 0.

    Over a mesh each block is spread, so that each device has as much as one alone would.
    """
    n, d = data.rows.shape
    power = 1 << (n - 1).bit_length()  # splits of different sizes share compiled programs
    size, counts = min(power, max(1, BLOCK_BYTES // (4 * d)) * (mesh.size if mesh else 1)), data.counts

    def read(first: int) -> Block:
        part, labels, weights = (x[first : first + size] for x in (data.rows, data.fine, counts))
        missing = size - len(labels)
        if missing or not weights.all():
            part = np.where(weights[:, None] > 0, np.asarray(part, np.float32), 0)
            part = np.concatenate([part, np.zeros((missing, d), np.float32)])
            labels, weights = (np.concatenate([x, np.zeros(missing, x.dtype)]) for x in (labels, weights))
        columns = np.asarray(part, np.float32), np.asarray(labels, np.int32), np.asarray(weights, np.float32)
        return Block(*(shard_rows(column, mesh) for column in columns))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, 0)
        for first in range(0, n, size):
            block = ahead.result()
            ahead = pool.submit(read, first + size) if first + size < n else ahead
            yield block


def gather_moments(data: Labelled, classes: int, mesh: Mesh | None = None) -> Moments:
    """Moments of any number of examples by one reading, in the memory of two blocks."""
    reading = blocks(data, mesh)
    found = _moments(next(reading), None, classes)
    for block in reading:
        found = _add(found, _moments(block, found.fine.origin, classes))
    return to_first(found, mesh)


@partial(jax.jit, static_argnames="classes")
def _moments(block: Block, origin: Array | None, classes: int) -> Moments:
    fine = class_statistics(block.features, block.fine, classes, block.weights, origin)
    return Moments(fine, unit_sums(block.features, block.fine, block.weights, classes))


@partial(jax.jit, donate_argnums=0)
def _add(a: Moments, b: Moments) -> Moments:
    return Moments(merge(a.fine, b.fine), a.units + b.units)


def measure_split(data: Labelled, super_class: tuple[int, ...], mesh: Mesh | None = None) -> tuple[Split, Moments]:
    """Everything but what needs a classifier.

    Args:
        data: labels in `0..f-1`; a class may have no example.
        super_class: coarse label of each fine class.
        mesh: over which the examples are spread; none: one device.
    """
    owner, classes = jnp.asarray(super_class, jnp.int32), max(super_class) + 1
    moments = gather_moments(data, len(super_class), mesh)
    levels = _levels(moments.fine, owner, classes)  # eigenvalues keep one core busy while examples are read
    sums = [_silhouettes(block, moments, owner) for block in blocks(data, mesh)]
    silhouettes = jax.tree.map(lambda *parts: sum(map(to_host, parts)), *sums)
    sample = (shard_rows(part, mesh, axis=1) for part in _sample(data, np.asarray(super_class)[data.fine], classes))
    c4 = to_first(_c4(*sample, moments.fine.counts, owner), mesh)
    within = _within(moments.fine, silhouettes, c4, owner, classes)
    return Split(**levels, within=within), moments


@jax.jit
def _silhouettes(block: Block, moments: Moments, super_class: Array) -> Silhouettes:
    return silhouette_sums(block.features, block.fine, block.weights, moments.fine, moments.units, super_class)


def _sample(data: Labelled, coarse: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to `SPREAD_ROWS` examples of each super-class, evenly spaced, with their weights; filled up with 0."""
    counts = data.counts
    of = [np.flatnonzero((coarse == label) & (counts > 0)) for label in range(classes)]
    shape = classes, SPREAD_ROWS  # the same for every split and resample
    points, weights = np.zeros((*shape, data.rows.shape[1]), np.float32), np.zeros(shape, np.float32)
    for i, found in enumerate(of):
        chosen = found[np.linspace(0, len(found) - 1, min(SPREAD_ROWS, len(found))).astype(int)]
        points[i, : len(chosen)] = np.asarray(data.rows[chosen], np.float32)
        weights[i, : len(chosen)] = counts[chosen]
    return points, weights


@jax.jit
def _c4(points: Array, weights: Array, counts: Array, super_class: Array) -> Array:
    of_super_class = jax.nn.one_hot(super_class, len(points), dtype=counts.dtype).T @ counts
    return cosine_spread(points, weights, of_super_class)


@partial(jax.jit, static_argnames="classes")
def _levels(fine: ClassStatistics, super_class: Array, classes: int) -> dict[str, Any]:
    """The parts of a split that follow from its moments alone."""
    coarse = merge_classes(fine, super_class, fine.counts.size)  # as many, some of them empty: one program for both
    found = jax.lax.map(level, jax.tree.map(lambda *leaves: jnp.stack(leaves), fine, coarse))
    of_fine, of_coarse = (jax.tree.map(itemgetter(i), found) for i in (0, 1))
    spectrum_of_coarse = of_coarse.geometry.cosine_spectrum[:classes]
    return {
        "coarse": of_coarse._replace(geometry=of_coarse.geometry._replace(cosine_spectrum=spectrum_of_coarse)),
        "fine": of_fine,
        "effective_rank": covariance_rank(fine) if fine.origin.size <= MOST_FEATURES else jnp.array(jnp.nan),
        "class_distances": class_distances(fine),
    }


@partial(jax.jit, static_argnames="classes")
def _within(fine: ClassStatistics, silhouettes: Silhouettes, c4: Array, super_class: Array, classes: int) -> Within:
    coarse = merge_classes(fine, super_class, classes)
    has_siblings = siblings(fine.counts, super_class).any(axis=1)
    examples = jnp.maximum((fine.counts * has_siblings).sum(), 1)
    by_class = silhouettes.cosine / jnp.maximum(fine.counts, 1)
    return Within(
        distances=summarise_distances(fine, super_class),
        explained=explained_variance(fine, coarse, super_class),
        silhouette=silhouettes.squared.sum() / examples,
        silhouette_cosine=silhouettes.cosine.sum() / examples,
        intraclass=intraclass(fine, coarse, super_class),
        c2=jnp.nanmedian(jnp.where(has_siblings, by_class, jnp.nan)),
        c4=c4,
    )


def level(statistics: ClassStatistics) -> Level:
    """Collapse to the classes of the statistics."""
    few = statistics.origin.size <= MOST_FEATURES
    collapse = nc1(statistics)
    return Level(
        collapse=collapse,
        separation=collapse.nc1 * (statistics.counts > 0).sum(),
        cdnv=cdnv(statistics),
        spectrum=spectrum(statistics) if few else Spectrum(jnp.array(jnp.nan), jnp.array(jnp.nan)),
        geometry=geometry(statistics),
    )


def nearest_mean_disagreement(
    data: Labelled, means: ClassStatistics, classifier: Classifier, mesh: Mesh | None = None
) -> float:
    """NC4: share of examples to which the nearest class mean gives another class than the classifier, bias included."""
    found = sum(to_first(_disagreements(block, means, classifier), mesh) for block in blocks(data, mesh))
    return float(found) / float(data.counts.sum())


@jax.jit
def _disagreements(block: Block, means: ClassStatistics, classifier: Classifier) -> Array:
    distances = jnp.where((means.counts > 0)[None, :], squared_distances(block.features, means), jnp.inf)
    logits = jnp.matmul(block.features, classifier.weights.T, precision=HIGHEST) + classifier.bias[None, :]
    return ((distances.argmin(axis=1) != logits.argmax(axis=1)) * block.weights).sum()
