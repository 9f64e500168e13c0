# SPDX-License-Identifier: Apache-2.0
"""Moments of features larger than memory: of each class by one pass, of each super-class by a second one."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32

from ncjax.collapse.reading import Labelled
from ncjax.distributed.processes import gather_each, own_share, sum_over_processes
from ncjax.evaluation.linear_probe import CONSTANT
from ncjax.storage.read_ahead import read_ahead

BLOCK_BYTES = 2**25  # of float32, read at once: a super-class has some rows in each block


class Part(NamedTuple):
    """Some of the rows that count."""

    numbers: Int[np.ndarray, "b"]  # of the rows
    rows: Float32[np.ndarray, "b d"]


def parts(data: Labelled) -> Iterator[Part]:
    """The rows that count, a block at a time; the next is read ahead. Each of several processes reads its share."""
    d, share = data.rows.shape[1], own_share(len(data.fine))
    size, counts = max(1, BLOCK_BYTES // (4 * d)), data.counts

    def read(first: int) -> Part:
        block = slice(first, min(first + size, share.stop))
        rows, kept = np.asarray(data.rows[block], np.float32), counts[block] > 0
        return Part(first + np.flatnonzero(kept), rows if kept.all() else rows[kept])

    return read_ahead(read(first) for first in range(share.start, share.stop, size))


def by_label(labels: Int[np.ndarray, "b"]) -> Iterator[tuple[int, Int[np.ndarray, "m"]]]:
    """Each label that occurs, with the places where it does."""
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]), strict=True)


class ClassMeans(NamedTuple):
    """First moments, in float64.

    Attributes:
        counts: rows of each class.
        means: of each class; 0 for a class without rows.
        least: of each feature.
        most: of each feature.
        largest: magnitude of a number in each class; 0 for a class without rows.
    """

    counts: Int[np.ndarray, "c"]
    means: Float64[np.ndarray, "c d"]
    least: Float32[np.ndarray, "d"]
    most: Float32[np.ndarray, "d"]
    largest: Float64[np.ndarray, "c"]

    @property
    def mean(self) -> Float64[np.ndarray, "d"]:
        """Of all rows."""
        return self.counts @ self.means / self.counts.sum()

    def merged(self, super_class: Int[np.ndarray, "c"]) -> "ClassMeans":
        """Those of super-classes."""
        groups = int(super_class.max()) + 1
        counts, sums = np.zeros(groups, np.int64), np.zeros((groups, self.means.shape[1]))
        largest = np.zeros(groups)
        np.add.at(counts, super_class, self.counts)
        np.add.at(sums, super_class, self.counts[:, None] * self.means)
        np.maximum.at(largest, super_class, self.largest)
        return ClassMeans(counts, sums / np.maximum(counts, 1)[:, None], self.least, self.most, largest)


def class_means(data: Labelled, classes: int) -> ClassMeans:
    """By one pass."""
    d = data.rows.shape[1]
    counts, sums, largest = np.zeros(classes, np.int64), np.zeros((classes, d)), np.zeros(classes)
    least, most = np.full(d, np.inf, np.float32), np.full(d, -np.inf, np.float32)
    for part in parts(data):
        if not len(part.rows):
            continue
        least, most = np.minimum(least, part.rows.min(axis=0)), np.maximum(most, part.rows.max(axis=0))
        for label, places in by_label(data.fine[part.numbers]):
            own = part.rows[places]
            counts[label] += len(places)
            sums[label] += own.sum(axis=0, dtype=np.float64)
            largest[label] = max(largest[label], float(own.max()), -float(own.min()))
    counts, sums = sum_over_processes(counts), sum_over_processes(sums)
    least, most = gather_each(least).min(axis=0), gather_each(most).max(axis=0)
    largest = gather_each(largest).max(axis=0)
    return ClassMeans(counts, sums / np.maximum(counts, 1)[:, None], least, most, largest)


def centred_products(
    data: Labelled, owner: Int32[np.ndarray, "n"], means: Float64[np.ndarray, "g d"]
) -> Float64[np.ndarray, "g d d"]:
    """`sum_i (x_i - M)(x_i - M)^T` of each super-class around its mean, in float64, by one pass.

    Args:
        data: of which rows are read.
        owner: super-class of each row; rows of -1 are left out.
        means: of the super-classes.
    """
    products = np.zeros((len(means), means.shape[1], means.shape[1]))
    for part in parts(data):
        for group, places in by_label(owner[part.numbers]):
            if group >= 0:
                own = (part.rows[places] - means[group]).astype(np.float32).astype(np.float64)
                products[group] += own.T @ own
    return sum_over_processes(products)


class Scaling(NamedTuple):
    """How features are standardised: `(x - mean) / std`, and 0 where a feature is constant."""

    mean: Float64[np.ndarray, "d"]
    std: Float64[np.ndarray, "d"]  # 1 for a feature that is constant
    varies: Bool[np.ndarray, "d"]


def scaling_of(of_classes: ClassMeans, scatter: Float64[np.ndarray, "d"]) -> Scaling:
    """The same as `ncjax.evaluation.linear_probe.standardise`.

    Args:
        of_classes: first moments.
        scatter: sum of the squared deviations from the mean of all rows, by feature.
    """
    mean = of_classes.mean
    largest = np.maximum(of_classes.most - mean, mean - of_classes.least)
    varies = largest > CONSTANT * np.finfo(np.float32).eps * np.abs(mean)
    std = np.sqrt(scatter / of_classes.counts.sum())
    return Scaling(mean, np.where(varies, np.where(std > 0, std, 1.0), 1.0), varies)


def total_products(within: Float64[np.ndarray, "d d"], of_groups: ClassMeans) -> Float64[np.ndarray, "d d"]:
    """Those of all rows around the mean of all, of the sum of those of super-classes around their means."""
    apart = of_groups.means - of_groups.mean
    return within + (apart.T * of_groups.counts) @ apart
