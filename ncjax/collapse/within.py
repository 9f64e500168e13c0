# SPDX-License-Identifier: Apache-2.0
"""Structure of the fine classes that remains inside the super-classes that a network was trained on.

All means over examples are exact: mean squared and mean cosine distances from an example to a class follow from the
moments of the class, so no matrix of distances between examples is computed.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ncjax.collapse.reading import Block, Moments
from ncjax.collapse.record import Metric
from ncjax.collapse.statistics import ClassStatistics, at_least_one, average, squared_distances
from ncjax.collapse.units import unit_vectors
from ncjax.collapse.variability import class_distances
from ncjax.ops.products import matmul
from ncjax.results import MetricInfo


class Distances(NamedTuple):
    """Mean squared distances between examples of a class, of two merged classes, of two super-classes."""

    distance_same_class: Float[Array, ""]
    distance_merged_classes: Float[Array, ""]
    distance_other_classes: Float[Array, ""]


class Explained(NamedTuple):
    """Share of the variance inside super-classes that the fine labels explain, from 0 to 1."""

    explained_variance: Float[Array, ""]  # of all super-classes with several classes together
    explained_by_super_class: Float[Array, "c"]  # NaN where a super-class has one class


class SilhouetteSums(NamedTuple):
    """Sums of silhouettes by fine class; 0 for an example that is alone in its class or class in its super-class."""

    squared: Float[Array, "f"]  # squared Euclidean distance
    cosine: Float[Array, "f"]


class Silhouettes(NamedTuple):
    """Silhouettes of the fine classes inside their super-class, from -1 to 1."""

    silhouette: Float[Array, ""]  # squared Euclidean distance; mean over the examples of classes with siblings
    silhouette_cosine: Float[Array, ""]
    c2: Float[Array, ""]  # median over fine classes of the mean cosine silhouette


def siblings(counts: Float[Array, "f"], super_class: Int32[Array, "f"]) -> Bool[Array, "f f"]:
    """Which pairs of different fine classes with examples share a super-class."""
    present = counts > 0
    same = (super_class[:, None] == super_class[None, :]) & present[:, None] & present[None, :]
    return same & ~jnp.eye(counts.size, dtype=bool)


def summarise_distances(fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]) -> Distances:
    """The matrix of class distances in three numbers: averages over classes or pairs of classes, NaN without any.

    A class with one example has no distance between two.
    """
    distances, present = class_distances(fine), fine.counts > 0
    merged = siblings(fine.counts, super_class)
    same = jnp.diag(fine.counts > 1)
    others = present[:, None] & present[None, :] & ~merged & ~jnp.diag(present)
    return Distances(*(average(distances, pairs) for pairs in (same, merged, others)))


def explained_variance(fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]) -> Explained:
    """Between-class over total variance of the fine classes inside each super-class: `1 - sum_f S_f / S_c`.

    Labels that mean nothing give about `(classes - 1) / examples`, not 0.
    """
    owner = jax.nn.one_hot(super_class, coarse.counts.size, dtype=fine.counts.dtype)
    apart = fine.means - coarse.means[super_class]
    inside, between = owner.T @ fine.squares.sum(axis=1), owner.T @ (fine.counts * (apart**2).sum(axis=1))
    several = owner.T @ (fine.counts > 0).astype(owner.dtype) > 1
    inside, between = jnp.where(several, inside, 0.0), jnp.where(several, between, 0.0)
    return Explained(between.sum() / (between + inside).sum(), between / (between + inside))


@jax.jit
def silhouette_sums(block: Block, moments: Moments, super_class: Int32[Array, "f"]) -> SilhouetteSums:
    """Silhouettes `(b - a) / max(a, b)` of examples among the fine classes of their super-class (Rousseeuw 1987).

    `a` is the mean distance to the others of the class, `b` that to the nearest sibling class. The same as
    scikit-learn's `silhouette_samples` with `metric="sqeuclidean"` and `"cosine"` on each super-class.

    Args:
        block: some of the examples that `moments` are of; those of weight 0 are left out.
        moments: of all examples.
        super_class: of each fine class.
    """
    features, labels, _ = block
    fine, units = moments.fine, moments.units
    vectors, zero = unit_vectors(features, units.origin)
    positions, none = features - fine.origin[None, :], jnp.zeros_like(zero)
    squared = _scores(block, positions, none, fine.means, fine.squares.sum(axis=1), fine.counts, super_class)
    cosine = _scores(block, vectors, zero, units.means, units.squares, fine.counts, super_class)
    member = jax.nn.one_hot(labels, fine.counts.size, dtype=features.dtype)
    return SilhouetteSums(squared @ member, cosine @ member)


def _scores(
    block: Block,
    rows: Float[Array, "b d"],
    extra: Float[Array, "b"],
    means: Float[Array, "f d"],
    squares: Float[Array, "f"],
    counts: Float[Array, "f"],
    super_class: Int32[Array, "f"],
) -> Float[Array, "b"]:
    """Weighted silhouettes in the squared distances of rows, of which the mean is `|x - m|^2 + v`, plus `extra` each.

    The means are taken from that of their super-class, so that distances inside it do not cancel.
    """
    _, labels, weights = block
    merged, sizes = siblings(counts, super_class), at_least_one(counts)
    owner = jax.nn.one_hot(super_class, counts.size, dtype=means.dtype) * counts[:, None]
    groups = matmul(owner.T, means) / at_least_one(owner.sum(axis=0))[:, None]
    inside = means - groups[super_class]
    distances = squared_distances(rows - means[labels], labels, inside, inside)
    distances += (squares / sizes)[None, :] + extra[:, None]
    own = jnp.take_along_axis(distances, labels[:, None], axis=1)[:, 0]
    own = (own * sizes[labels] - 2 * extra) / jnp.maximum(sizes - 1, 1)[labels]
    nearest = jnp.where(merged[labels], distances, jnp.inf).min(axis=1)
    largest = jnp.maximum(own, nearest)
    counted = (counts > 1)[labels] & merged.any(axis=1)[labels] & (weights > 0) & (largest > 0)
    return jnp.where(counted, (nearest - own) / jnp.where(counted, largest, 1.0), 0.0) * weights


def mean_silhouettes(
    sums: SilhouetteSums, fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]
) -> Silhouettes:
    """Means over the examples of classes with siblings; NaN where no class has one."""
    has_siblings = siblings(fine.counts, super_class).any(axis=1)
    examples = (fine.counts * has_siblings).sum()
    by_class = sums.cosine / at_least_one(fine.counts)
    return Silhouettes(
        silhouette=sums.squared.sum() / examples,
        silhouette_cosine=sums.cosine.sum() / examples,
        c2=jnp.nanmedian(jnp.where(has_siblings, by_class, jnp.nan)),
    )


_info = partial(MetricInfo, scope="within", low=0.0)

DISTANCES = Metric(
    function=summarise_distances,
    inputs="super_classes",
    outputs={
        "distance_same_class": _info(label="squared distance: same class", short="distance, same class"),
        "distance_merged_classes": _info(label="squared distance: merged classes", short="merged classes"),
        "distance_other_classes": _info(label="squared distance: other super-classes", short="other classes"),
    },
    power=2,
)
EXPLAINED = Metric(
    function=explained_variance,
    inputs="super_classes",
    outputs={
        "explained_variance": _info(
            label="variance inside super-classes explained by fine labels",
            short="explained by fine labels",
            high=1.0,
            better="higher",
        ),
        "explained_by_super_class": _info(label="the same, by super-class", high=1.0, better="higher"),
    },
)
SILHOUETTES = Metric(
    function=mean_silhouettes,
    inputs="super_classes",
    outputs={
        "silhouette": _info(
            label="silhouette of fine classes (squared Euclidean)",
            short="silhouette",
            low=-1.0,
            high=1.0,
            better="higher",
        ),
        "silhouette_cosine": _info(
            label="silhouette of fine classes (cosine)", short="silhouette, cosine", low=-1.0, high=1.0, better="higher"
        ),
    },
    sums=silhouette_sums,
)
C2 = Metric(
    function=mean_silhouettes,
    inputs="super_classes",
    outputs={"c2": _info(label="Carbonnelle c2", low=-1.0, high=1.0, better="higher")},
    sums=silhouette_sums,
)
