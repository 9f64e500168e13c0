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
from ncjax.collapse.statistics import TINY, ClassStatistics, average, row_norms, squared_distances
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
    explained_by_super_class: Float[Array, "c"]  # 0 where a super-class has one class


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
    """The matrix of class distances in three numbers: averages over classes or pairs of classes."""
    distances, present = class_distances(fine), fine.counts > 0
    merged = siblings(fine.counts, super_class)
    same = jnp.diag(present)
    others = present[:, None] & present[None, :] & ~merged & ~same
    return Distances(*(average(distances, pairs) for pairs in (same, merged, others)))


def explained_variance(fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]) -> Explained:
    """Between-class over total variance of the fine classes inside each super-class: `1 - sum_f S_f / S_c`.

    Labels that mean nothing give about `(classes - 1) / examples`, not 0.
    """
    owner = jax.nn.one_hot(super_class, coarse.counts.size, dtype=fine.counts.dtype)
    inside, total = owner.T @ fine.squares.sum(axis=1), coarse.squares.sum(axis=1)
    several = owner.T @ (fine.counts > 0) > 1
    between = jnp.where(several, jnp.maximum(total - inside, 0.0), 0.0)
    total = jnp.where(several, total, 0.0)
    return Explained(between.sum() / jnp.maximum(total.sum(), TINY), between / jnp.maximum(total, TINY))


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
    features, labels, weights = block
    fine = moments.fine
    counts = jnp.maximum(fine.counts, 1)
    merged = siblings(fine.counts, super_class)
    member = jax.nn.one_hot(labels, fine.counts.size, dtype=features.dtype)
    cosines = matmul(features, (moments.units / counts[:, None]).T) / row_norms(features)[:, None]
    sums = []
    for distances in (squared_distances(features, fine) + fine.variances[None, :], 1 - cosines):
        own = (distances * member).sum(axis=1) * (counts / jnp.maximum(counts - 1, 1))[labels]
        nearest = jnp.where(merged[labels], distances, jnp.inf).min(axis=1)
        counted = (fine.counts > 1)[labels] & merged.any(axis=1)[labels] & (weights > 0)
        nearest = jnp.where(counted, nearest, 0.0)
        score = jnp.where(counted, (nearest - own) / jnp.maximum(jnp.maximum(own, nearest), TINY), 0.0)
        sums.append((score * weights) @ member)
    return SilhouetteSums(*sums)


def mean_silhouettes(
    sums: SilhouetteSums, fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]
) -> Silhouettes:
    """Means over the examples of classes with siblings."""
    has_siblings = siblings(fine.counts, super_class).any(axis=1)
    examples = jnp.maximum((fine.counts * has_siblings).sum(), 1)
    by_class = sums.cosine / jnp.maximum(fine.counts, 1)
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
