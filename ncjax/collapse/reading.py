# SPDX-License-Identifier: Apache-2.0
"""Reading of features in memory or on disk, block by block: moments by one pass, and a subsample."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32

from ncjax.collapse.statistics import ClassStatistics, class_statistics, merge
from ncjax.collapse.units import UnitMoments, UnitOrigin, merge_units, unit_moments, unit_origin
from ncjax.distributed.processes import own_share
from ncjax.distributed.sharding import shard_read, shard_rows, to_first_device
from ncjax.storage.arrays import ChosenRows, Rows, frame_of
from ncjax.storage.read_ahead import read_ahead

BLOCK_BYTES = 2**22  # read at a time for each device: small enough for a processor's cache
SUBSAMPLE = 2000  # examples of each super-class


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

    def counts_of(self, rows: slice) -> Float32[np.ndarray, "_"]:
        """`counts` of some examples."""
        if self.weights is None:
            return np.ones(len(range(*rows.indices(len(self.fine)))), np.float32)
        return np.asarray(self.weights[rows], np.float32)

    def own_part(self) -> "Labelled":
        """The share of this process, where there are several."""
        share = own_share(len(self.fine))
        if share == slice(0, len(self.fine)):
            return self
        rows = ChosenRows(self.rows, np.arange(share.start, share.stop))
        return Labelled(rows, self.fine[share], None if self.weights is None else self.weights[share])


class Block(NamedTuple):
    """Some examples; the last block is padded with examples of weight 0."""

    features: Float[Array, "b d"]
    fine: Int32[Array, "b"]
    weights: Float[Array, "b"]


class Moments(NamedTuple):
    """What the first pass keeps; moments of two blocks are merged."""

    fine: ClassStatistics
    units: UnitMoments


def blocks(data: Labelled, mesh: Mesh | None = None, most_bytes: int | None = None) -> Iterator[Block]:
    """Blocks of examples; the next is read ahead. Features of weight 0 are replaced by 0.

    Args:
        data: features in memory or on disk.
        mesh: devices that each block is sharded over, each with as many examples as one alone would have; none: one.
        most_bytes: of the features that a device has; none: as fit a processor's cache.
    """
    n, size = len(data.fine), block_size(data, mesh.size if mesh else 1, most_bytes)
    return read_ahead(_block(data, first, size, mesh) for first in range(0, n, size))


def _block(data: Labelled, first: int, size: int, mesh: Mesh | None) -> Block:
    """Each process reads the examples of its own devices."""

    def examples(part: slice) -> slice:
        start, stop, _ = part.indices(size)
        return slice(first + start, first + stop)

    return Block(
        shard_read(lambda part: _features(data, examples(part)), (size, data.rows.shape[1]), mesh),
        shard_read(lambda part: _fine(data, examples(part)), (size,), mesh),
        shard_read(lambda part: _counts(data, examples(part)), (size,), mesh),
    )


def all_blocks(data: Labelled) -> Block:
    """All blocks on one device, stacked `[g b ...]`."""
    n, size = len(data.fine), block_size(data)
    count = -(-n // size)
    whole = slice(0, count * size)
    columns = _features(data, whole), _fine(data, whole), _counts(data, whole)
    return Block(*(column.reshape(count, size, *column.shape[1:]) for column in columns))  # type: ignore[arg-type]


def block_size(data: Labelled, devices: int = 1, most_bytes: int | None = None) -> int:
    """Examples of a block."""
    n, d = data.rows.shape
    padded = 1 << (n - 1).bit_length()  # splits of different sizes share compiled programs
    if devices > 1:  # each has as many rows as the others, but for fewer than 64
        padded = min(padded, -(-n // (64 * devices)) * 64 * devices)
    return min(padded, max(1, (most_bytes or BLOCK_BYTES) // (4 * d)) * devices)


def _features(data: Labelled, rows: slice) -> Float32[np.ndarray, "_ d"]:
    """Features of some examples, 0 for those of weight 0 and for those behind the last."""
    part, weights = np.asarray(data.rows[rows], np.float32), data.counts_of(rows)
    if not weights.all():
        part = np.where(weights[:, None] > 0, part, np.float32(0))
    return _lengthened(part, rows)


def _fine(data: Labelled, rows: slice) -> Int32[np.ndarray, "_"]:
    return _lengthened(np.asarray(data.fine[rows], np.int32), rows)


def _counts(data: Labelled, rows: slice) -> Float32[np.ndarray, "_"]:
    return _lengthened(data.counts_of(rows), rows)


def _lengthened(array: np.ndarray, rows: slice) -> np.ndarray:
    """With 0 for rows behind the last."""
    missing = rows.stop - rows.start - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) if missing else array


def drawn_blocks(
    data: Labelled, draws: Float[np.ndarray, "r n"], mesh: Mesh | None = None
) -> Iterator[tuple[Block, Float[Array, "r b"]]]:
    """`blocks`, with how often each example counts in each of several draws."""
    size = block_size(data, mesh.size if mesh else 1)
    for place, block in enumerate(blocks(data, mesh)):
        part = draws[:, place * size : (place + 1) * size]
        yield block, shard_rows(np.pad(part, ((0, 0), (0, size - part.shape[1]))), mesh, axis=1)


def gather_moments(data: Labelled, draws: Float[np.ndarray, "r n"], classes: int, mesh: Mesh | None = None) -> Moments:
    """Moments `[r ...]` of any number of examples in each draw by one pass, in the memory of two blocks."""
    reading, towards = drawn_blocks(data, draws, mesh), unit_origin(frame_of(data.rows))
    found = _first_moments(*next(reading), towards, classes)
    for block, counts in reading:
        found = _more_moments(found, block, counts, towards, classes)
    return to_first_device(found, mesh)


@partial(jax.jit, static_argnames="classes")
def _first_moments(block: Block, counts: Float[Array, "r b"], towards: UnitOrigin | None, classes: int) -> Moments:
    return lax.map(lambda draw: block_moments(block._replace(weights=draw), None, towards, classes), counts)


@partial(jax.jit, static_argnames="classes", donate_argnames="found")
def _more_moments(
    found: Moments, block: Block, counts: Float[Array, "r b"], towards: UnitOrigin | None, classes: int
) -> Moments:
    def add(one: tuple[Moments, Array]) -> Moments:
        before, draw = one
        return add_moments(before, block_moments(block._replace(weights=draw), before.fine.origin, towards, classes))

    return lax.map(add, (found, counts))


@partial(jax.jit, static_argnames="classes")
def block_moments(block: Block, origin: Float[Array, "d"] | None, towards: UnitOrigin | None, classes: int) -> Moments:
    """Moments of one block, relative to an origin, or to the mean of the block; unit vectors relative to `towards`."""
    fine = class_statistics(block.features, block.fine, classes, block.weights, origin)
    return Moments(fine, unit_moments(block.features, block.fine, block.weights, classes, towards))


@jax.jit
def add_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the examples of both."""
    return Moments(merge(a.fine, b.fine), merge_units(a.units, b.units, a.fine.counts, b.fine.counts))


class Subsample(NamedTuple):
    """Some examples of each super-class.

    Attributes:
        points: `[c m d]`, padded with 0.
        weights: how often each counts; 0 for padding.
        origin: of their unit vectors.
    """

    points: Float[Array, "c m d"]
    weights: Float[Array, "c m"]
    origin: UnitOrigin | None


def sample_rows(
    coarse: Int[np.ndarray, "n"], counts: Float[np.ndarray, "n"], classes: int, size: int = SUBSAMPLE
) -> Int32[np.ndarray, "c m"]:
    """Up to `SUBSAMPLE` rows of each super-class, drawn at random: their order does not bias them; padded with -1.

    Args:
        coarse: super-class of each example.
        counts: how often each counts; those of 0 are not drawn.
        classes: number of super-classes `c`.
        size: `m`; as large as the largest super-class, or `SUBSAMPLE`.
    """
    rng, rows = np.random.default_rng(0), np.full((classes, size), -1, np.int32)
    for label in range(classes):
        chosen = np.flatnonzero((coarse == label) & (counts > 0))
        if len(chosen) > SUBSAMPLE:
            chosen = np.sort(rng.choice(chosen, SUBSAMPLE, replace=False))
        rows[label, : len(chosen)] = chosen
    return rows


def subsample(data: Labelled, coarse: Int[np.ndarray, "n"], classes: int, mesh: Mesh | None = None) -> Subsample:
    """The examples of `sample_rows`.

    Args:
        data: features in memory or on disk.
        coarse: super-class of each example.
        classes: number of super-classes `c`.
        mesh: devices that the examples of each super-class are sharded over; none: one.
    """
    chosen = sample_rows(coarse, data.counts, classes)
    points, weights = np.zeros((*chosen.shape, data.rows.shape[1]), np.float32), np.zeros(chosen.shape, np.float32)
    for label, rows in enumerate(chosen):
        rows = rows[rows >= 0]
        points[label, : len(rows)] = np.asarray(data.rows[rows], np.float32)
        weights[label, : len(rows)] = data.counts[rows]
    towards = unit_origin(frame_of(data.rows))
    return Subsample(shard_rows(points, mesh, axis=1), shard_rows(weights, mesh, axis=1), towards)
