# SPDX-License-Identifier: Apache-2.0
"""What is left of the fine classes inside the super-classes that a network was trained on.

All means over examples are exact: mean squared and mean cosine distances from an example to a class follow from the
class's moments, so no matrix of distances between examples is made.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ncjax.collapse.neural_collapse import average, class_distances
from ncjax.collapse.statistics import HIGHEST, TINY, ClassStatistics, gram

TOP_NEURONS = 30  # of Carbonnelle and De Vleeschouwer


class Distances(NamedTuple):
    """Mean squared distances between examples: of a class, of two merged classes, of two super-classes."""

    same_class: Float[Array, ""]
    merged_classes: Float[Array, ""]
    other_classes: Float[Array, ""]


class Explained(NamedTuple):
    """Share of the variance inside super-classes that the fine labels explain, from 0 to 1."""

    of_super_class: Float[Array, "c"]  # 0 where a super-class has one class
    all: Float[Array, ""]  # of all super-classes with several classes together


class Silhouettes(NamedTuple):
    """Sums of silhouettes by fine class; of examples that are alone in their class or super-class they are 0."""

    squared: Float[Array, "f"]  # squared Euclidean distance
    cosine: Float[Array, "f"]


def siblings(counts: Float[Array, "f"], super_class: Int32[Array, "f"]) -> Bool[Array, "f f"]:
    """Which pairs of fine classes with examples share a super-class; a class is no sibling of itself."""
    present = counts > 0
    same = (super_class[:, None] == super_class[None, :]) & present[:, None] & present[None, :]
    return same & ~jnp.eye(counts.size, dtype=bool)


def summarise_distances(fine: ClassStatistics, super_class: Int32[Array, "f"]) -> Distances:
    """The class-distance matrix in three numbers; averages over classes or pairs of classes."""
    distances, present = class_distances(fine), fine.counts > 0
    merged = siblings(fine.counts, super_class)
    same = jnp.diag(present)
    others = present[:, None] & present[None, :] & ~merged & ~same
    return Distances(*(average(distances, pairs) for pairs in (same, merged, others)))


def explained_variance(fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]) -> Explained:
    """Between over total variance of the fine classes inside each super-class: `1 - sum_f S_f / S_c`.

    Labels that mean nothing give about `(classes - 1) / examples`, not 0.
    """
    owner = jax.nn.one_hot(super_class, coarse.counts.size, dtype=fine.counts.dtype)
    inside, total = owner.T @ fine.squares.sum(axis=1), coarse.squares.sum(axis=1)
    several = owner.T @ (fine.counts > 0) > 1
    between = jnp.where(several, jnp.maximum(total - inside, 0.0), 0.0)
    total = jnp.where(several, total, 0.0)
    return Explained(between / jnp.maximum(total, TINY), between.sum() / jnp.maximum(total.sum(), TINY))


def unit_sums(
    features: Float[Array, "n d"], labels: Int32[Array, "n"], weights: Float[Array, "n"], classes: int
) -> Float[Array, "f d"]:
    """Sum of the features of each class, each scaled to length 1."""
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    return jnp.matmul((member * (weights / _lengths(features))[:, None]).T, features, precision=HIGHEST)


def silhouette_sums(
    features: Float[Array, "n d"],
    labels: Int32[Array, "n"],
    weights: Float[Array, "n"],
    fine: ClassStatistics,
    units: Float[Array, "f d"],
    super_class: Int32[Array, "f"],
) -> Silhouettes:
    """Silhouettes `(b - a) / max(a, b)` of examples among the fine classes of their super-class (Rousseeuw 1987).

    `a` is the mean distance to the others of the class, `b` that to the nearest sibling class. The same as
    scikit-learn's `silhouette_samples` with `metric="sqeuclidean"` and `"cosine"` on each super-class.

    Args:
        features: some of the examples that `fine` and `units` are of.
        labels: their fine classes.
        weights: 0 leaves one out.
        fine: statistics of the fine classes.
        units: sums of the unit vectors, as `unit_sums` gives them.
        super_class: of each fine class.
    """
    counts = jnp.maximum(fine.counts, 1)
    merged = siblings(fine.counts, super_class)
    member = jax.nn.one_hot(labels, fine.counts.size, dtype=features.dtype)
    cosines = jnp.matmul(features, (units / counts[:, None]).T, precision=HIGHEST) / _lengths(features)[:, None]
    sums = []
    for distances in (squared_distances(features, fine) + fine.variances[None, :], 1 - cosines):
        own = (distances * member).sum(axis=1) * (counts / jnp.maximum(counts - 1, 1))[labels]
        nearest = jnp.where(merged[labels], distances, jnp.inf).min(axis=1)
        counted = (fine.counts > 1)[labels] & merged.any(axis=1)[labels] & (weights > 0)
        nearest = jnp.where(counted, nearest, 0.0)
        score = jnp.where(counted, (nearest - own) / jnp.maximum(jnp.maximum(own, nearest), TINY), 0.0)
        sums.append((score * weights) @ member)
    return Silhouettes(*sums)


def squared_distances(features: Float[Array, "n d"], statistics: ClassStatistics) -> Float[Array, "n k"]:
    """Squared distance of each example to each class mean."""
    centred = features - statistics.origin[None, :]
    product = jnp.matmul(centred, statistics.means.T, precision=HIGHEST)
    squares = (statistics.means**2).sum(axis=1)
    return jnp.maximum((centred**2).sum(axis=1)[:, None] - 2 * product + squares[None, :], 0.0)


class Intraclass(NamedTuple):
    """Intraclass clustering of one layer (Carbonnelle and De Vleeschouwer, ICLR 2021), features as they are."""

    c1: Float[Array, ""]  # median over fine classes; neurons that tell one from its siblings
    c3: Float[Array, ""]  # mean over super-classes; neurons that vary inside one as much as over all


def intraclass(fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]) -> Intraclass:
    """Scores c1 and c3, means over the 30 best neurons (all, where there are fewer).

    c1: median over fine classes of `(m_in - m_out) / (sd_in + sd_out)`, against the rest of the super-class; the sum of
    deviations counts as at least 1e-4 of the neuron's deviation over all examples, for a neuron that is silent in a
    super-class has neither difference nor deviation but what rounding leaves. c3: mean over super-classes of
    `sd(super-class) / sd(all)`.
    """
    top, merged = min(TOP_NEURONS, fine.means.shape[1]), siblings(fine.counts, super_class)
    total = (coarse.squares + coarse.counts[:, None] * (coarse.means - coarse.mean[None, :]) ** 2).sum(axis=0)
    everywhere = jnp.maximum(jnp.sqrt(total / coarse.counts.sum()), 1e-7)[None, :]
    means_out, deviations_out = jax.lax.map(partial(_together, fine), merged)
    deviations = jnp.sqrt(fine.squares / jnp.maximum(fine.counts, 1)[:, None]) + deviations_out
    ratios = (fine.means - means_out) / jnp.maximum(deviations, 1e-4 * everywhere)
    selectivity = jax.lax.top_k(ratios, top)[0].mean(axis=1)

    inside = jnp.sqrt(coarse.squares / jnp.maximum(coarse.counts, 1)[:, None])
    spread = jax.lax.top_k(inside / everywhere, top)[0].mean(axis=1)
    present = coarse.counts > 0
    return Intraclass(
        c1=jnp.nanmedian(jnp.where(merged.any(axis=1), selectivity, jnp.nan)),
        c3=jnp.where(present, spread, 0.0).sum() / present.sum(),
    )


def _together(fine: ClassStatistics, chosen: Bool[Array, "f"]) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    """Mean and standard deviation of each feature over some classes together; no difference of large sums."""
    counts = fine.counts * chosen
    total = jnp.maximum(counts.sum(), 1)
    mean = jnp.matmul(counts, fine.means, precision=HIGHEST) / total
    squares = jnp.matmul(counts, (fine.means - mean[None, :]) ** 2, precision=HIGHEST)
    squares += jnp.matmul(chosen.astype(counts.dtype), fine.squares, precision=HIGHEST)
    return mean, jnp.sqrt(squares / total)


def cosine_spread(
    features: Float[Array, "c m d"], weights: Float[Array, "c m"], counts: Float[Array, "c"]
) -> Float[Array, ""]:
    """Score c4: mean over super-classes of the standard deviation of all cosine distances in one, over that of all.

    With the mean `m` and the covariance `S` of unit vectors, the variance of their cosines over all pairs is
    `2 m^T S m + |S|_F^2`.

    Args:
        features: up to `m` examples of each super-class.
        weights: 1, or 0 for what fills up a super-class.
        counts: examples that each super-class has in all.
    """

    def moments(one: tuple[Array, Array]) -> tuple[Array, Array]:
        points, weight = one
        unit, share = points / _lengths(points)[:, None], weight / jnp.maximum(weight.sum(), 1)
        mean = jnp.matmul(share, unit, precision=HIGHEST)
        apart = (unit - mean[None, :]) * jnp.sqrt(share)[:, None]
        return mean, gram(apart)

    def deviation(mean: Array, covariance: Array) -> Array:
        return jnp.sqrt(2 * mean @ covariance @ mean + (covariance**2).sum())

    means, covariances = jax.lax.map(moments, (features, weights))
    part = counts / counts.sum()
    mean = part @ means
    apart = means - mean[None, :]
    between = jnp.matmul(apart.T * part[None, :], apart, precision=HIGHEST)
    everywhere = deviation(mean, jnp.tensordot(part, covariances, 1) + between)
    inside = jnp.where(counts > 0, jax.vmap(deviation)(means, covariances), 0.0)
    return inside.sum() / (counts > 0).sum() / jnp.maximum(everywhere, 1e-7)


def _lengths(features: Float[Array, "n d"]) -> Float[Array, "n"]:
    return jnp.maximum(jnp.linalg.norm(features, axis=1), TINY)
