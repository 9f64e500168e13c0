# SPDX-License-Identifier: Apache-2.0
"""Reading of features in memory or on disk, block by block: moments by one pass, and a subsample."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Int32

from ncjax.collapse.statistics import ClassStatistics, class_statistics, merge
from ncjax.collapse.units import UnitMoments, UnitOrigin, merge_units, unit_moments, unit_origin
from ncjax.distributed.sharding import shard_rows, to_first_device
from ncjax.storage.arrays import Rows, frame_of
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


class Block(NamedTuple):
    """Some examples; the last block is padded with examples of weight 0."""

    features: Float[Array, "b d"]
    fine: Int32[Array, "b"]
    weights: Float[Array, "b"]


class Moments(NamedTuple):
    """What the first pass keeps; moments of two blocks are merged."""

    fine: ClassStatistics
    units: UnitMoments


def blocks(data: Labelled, mesh: Mesh | None = None) -> Iterator[Block]:
    """Blocks of examples; the next is read ahead. Features of weight 0 are replaced by 0.

    Args:
        data: features in memory or on disk.
        mesh: devices that each block is sharded over, each with as many examples as one alone would have; none: one.
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

    return read_ahead(read(first) for first in range(0, n, size))


def gather_moments(data: Labelled, classes: int, mesh: Mesh | None = None) -> Moments:
    """Moments of any number of examples by one pass, in the memory of two blocks."""
    reading, towards = blocks(data, mesh), unit_origin(frame_of(data.rows))
    found = block_moments(next(reading), None, towards, classes)
    for block in reading:
        found = _add(found, block_moments(block, found.fine.origin, towards, classes))
    return to_first_device(found, mesh)


@partial(jax.jit, static_argnames="classes")
def block_moments(block: Block, origin: Float[Array, "d"] | None, towards: UnitOrigin | None, classes: int) -> Moments:
    """Moments of one block, relative to an origin, or to the mean of the block; unit vectors relative to `towards`."""
    fine = class_statistics(block.features, block.fine, classes, block.weights, origin)
    return Moments(fine, unit_moments(block.features, block.fine, block.weights, classes, towards))


@partial(jax.jit, donate_argnums=0)
def _add(a: Moments, b: Moments) -> Moments:
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


def subsample(data: Labelled, coarse: Int[np.ndarray, "n"], classes: int, mesh: Mesh | None = None) -> Subsample:
    """Up to `SUBSAMPLE` examples of each super-class, drawn at random: the order of the rows does not bias them.

    Args:
        data: features in memory or on disk.
        coarse: super-class of each example.
        classes: number of super-classes `c`.
        mesh: devices that the examples of each super-class are sharded over; none: one.
    """
    shape = classes, SUBSAMPLE  # the same for every split and resample
    counts, rng = data.counts, np.random.default_rng(0)
    points, weights = np.zeros((*shape, data.rows.shape[1]), np.float32), np.zeros(shape, np.float32)
    for label in range(classes):
        chosen = np.flatnonzero((coarse == label) & (counts > 0))
        if len(chosen) > SUBSAMPLE:
            chosen = np.sort(rng.choice(chosen, SUBSAMPLE, replace=False))
        points[label, : len(chosen)] = np.asarray(data.rows[chosen], np.float32)
        weights[label, : len(chosen)] = counts[chosen]
    towards = unit_origin(frame_of(data.rows))
    return Subsample(shard_rows(points, mesh, axis=1), shard_rows(weights, mesh, axis=1), towards)
