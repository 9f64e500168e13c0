# SPDX-License-Identifier: Apache-2.0
"""First and second moments of features by class: small, mergeable, and all that most metrics need.

Statistics of chunks, of devices or of fine classes are merged into those of the whole (Chan, Golub and LeVeque 1983).
Means are relative to an origin near the data, so that large offsets cost no precision.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ncjax.ops.products import gram, matmul

TINY = 1e-30


class ClassStatistics(NamedTuple):
    """Moments of `k` classes, any of which may have no example.

    Attributes:
        counts: number of examples, or sum of their weights, by class.
        origin: a point near the data.
        means: class means minus the origin; 0 for a class without examples.
        squares: sum over the examples of a class of the squared deviation from its mean, by feature.
        scatter: within-class scatter matrix, the sum of outer products of deviations from the class means.
    """

    counts: Float[Array, "k"]
    origin: Float[Array, "d"]
    means: Float[Array, "k d"]
    squares: Float[Array, "k d"]
    scatter: Float[Array, "d d"]

    @property
    def variances(self) -> Float[Array, "k"]:
        """Mean squared distance to the class mean."""
        return self.squares.sum(axis=-1) / jnp.maximum(self.counts, TINY)

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """Within-class covariance `S_W`; every example has the same weight."""
        return self.scatter / jnp.maximum(self.counts.sum(axis=-1), TINY)[..., None, None]

    @property
    def mean(self) -> Float[Array, "d"]:
        """Mean of all examples, minus the origin."""
        return self.counts @ self.means / jnp.maximum(self.counts.sum(), TINY)


@partial(jax.jit, static_argnames="classes")
def class_statistics(
    features: Float[Array, "n d"],
    labels: Int32[Array, "n"],
    classes: int,
    weights: Float[Array, "n"] | None = None,
    origin: Float[Array, "d"] | None = None,
) -> ClassStatistics:
    """Moments by class of features in memory; one product `X^T X` and two passes over the features.

    Under `jax.vmap` one of each member.

    Args:
        features: `n` examples `[n d]`.
        labels: classes in `0..k-1`, int32 `[n]`.
        classes: number of classes `k`.
        weights: of the examples `[n]`, at least 0, such as 0 for padding; none: all 1.
        origin: a point near the data `[d]`; none: the mean of these examples.

    Returns:
        Statistics of the `k` classes.

    Example:
        >>> import jax.numpy as jnp
        >>> found = class_statistics(jnp.array([[-1.0], [1.0], [5.0]]), jnp.array([0, 0, 1]), 2)
        >>> found.counts.tolist(), found.variances.tolist()
        ([2.0, 1.0], [1.0, 0.0])
    """
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    if weights is not None:
        member *= weights[:, None]
    counts = member.sum(axis=0)
    if origin is None:
        share = member.sum(axis=1) / jnp.maximum(counts.sum(), TINY)
        origin = features[0] + share @ (features - features[:1])
    centred = features - origin[None, :]
    means = matmul(member.T, centred) / jnp.maximum(counts, TINY)[:, None]
    residual = centred - means[labels]
    squares = matmul(member.T, residual**2)
    if weights is not None:
        residual *= jnp.sqrt(weights)[:, None]
    return ClassStatistics(counts, origin, means, squares, gram(residual))


@jax.jit
def merge(a: ClassStatistics, b: ClassStatistics) -> ClassStatistics:
    """Statistics of the examples of both, relative to the origin of the first (Chan, Golub and LeVeque 1983).

    Args:
        a: statistics of some examples.
        b: statistics of others, of the same classes.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> halves = class_statistics(x[::2], y[::2], 2), class_statistics(x[1::2], y[1::2], 2)
        >>> merge(*halves).variances.tolist() == class_statistics(x, y, 2).variances.tolist()
        True
    """
    counts = a.counts + b.counts
    apart = b.means + (b.origin - a.origin)[None, :] - a.means
    share = b.counts / jnp.maximum(counts, TINY)
    return ClassStatistics(
        counts,
        a.origin,
        a.means + apart * share[:, None],
        a.squares + b.squares + (a.counts * share)[:, None] * apart**2,
        a.scatter + b.scatter + _weighted_gram(apart, a.counts * share),
    )


@partial(jax.jit, static_argnames="classes")
def merge_classes(statistics: ClassStatistics, super_class: Int32[Array, "f"], classes: int) -> ClassStatistics:
    """Statistics of super-classes from those of their fine classes, without the examples.

    `sum_i |x_i - M|^2 = sum_i |x_i - m_i|^2 + sum_f n_f |m_f - M|^2`, and the same for outer products.

    Args:
        statistics: of `f` fine classes.
        super_class: of each fine class, in `0..c-1`, int32 `[f]`.
        classes: number of super-classes `c`.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> merge_classes(class_statistics(x, y, 2), jnp.array([0, 0]), 1).variances.tolist()
        [5.0]
    """
    owner = jax.nn.one_hot(super_class, classes, dtype=statistics.means.dtype)
    weighted = owner * statistics.counts[:, None]
    counts = weighted.sum(axis=0)
    means = matmul(weighted.T, statistics.means) / jnp.maximum(counts, TINY)[:, None]
    apart = statistics.means - means[super_class]
    squares = statistics.squares + statistics.counts[:, None] * apart**2
    return ClassStatistics(
        counts,
        statistics.origin,
        means,
        matmul(owner.T, squares),
        statistics.scatter + _weighted_gram(apart, statistics.counts),
    )


def merge_devices(statistics: ClassStatistics, axis: str) -> ClassStatistics:
    """Statistics of the examples of all devices along a mesh axis, under `jax.shard_map`; exchanges small sums only.

    Args:
        statistics: of the examples of this device.
        axis: name of the mesh axis.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[[-1.0]], [[1.0]]]), jnp.array([[0], [0]])
        >>> merged = jax.vmap(lambda x, y: merge_devices(class_statistics(x, y, 1), "data"), axis_name="data")(x, y)
        >>> merged.squares.tolist()  # on each of two devices: the sum over both examples
        [[[2.0]], [[2.0]]]
    """
    origin = lax.pmean(statistics.origin, axis)
    own = statistics.means + (statistics.origin - origin)[None, :]
    counts = lax.psum(statistics.counts, axis)
    means = lax.psum(own * statistics.counts[:, None], axis) / jnp.maximum(counts, TINY)[:, None]
    apart = own - means
    squares = statistics.squares + statistics.counts[:, None] * apart**2
    scatter = statistics.scatter + _weighted_gram(apart, statistics.counts)
    return ClassStatistics(counts, origin, means, lax.psum(squares, axis), lax.psum(scatter, axis))


def centred_means(statistics: ClassStatistics) -> tuple[Float[Array, "k d"], Bool[Array, "k"]]:
    """Class means minus their mean, 0 for a class without examples, and which classes have examples."""
    present = statistics.counts > 0
    weight = present / jnp.maximum(present.sum(), 1)
    means = statistics.means - matmul(weight, statistics.means)[None, :]
    return jnp.where(present[:, None], means, 0.0), present


def squared_distances(features: Float[Array, "n d"], statistics: ClassStatistics) -> Float[Array, "n k"]:
    """Squared distance of each example to each class mean."""
    centred = features - statistics.origin[None, :]
    product = matmul(centred, statistics.means.T)
    squares = (statistics.means**2).sum(axis=1)
    return jnp.maximum((centred**2).sum(axis=1)[:, None] - 2 * product + squares[None, :], 0.0)


def unit_sums(
    features: Float[Array, "n d"], labels: Int32[Array, "n"], weights: Float[Array, "n"], classes: int
) -> Float[Array, "f d"]:
    """Weighted sum of the features of each class, each scaled to length 1."""
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    return matmul((member * (weights / row_norms(features))[:, None]).T, features)


def row_norms(features: Float[Array, "n d"]) -> Float[Array, "n"]:
    """Euclidean length of each row, above 0."""
    return jnp.maximum(jnp.linalg.norm(features, axis=1), TINY)


def distinct_pairs(present: Bool[Array, "k"]) -> Bool[Array, "k k"]:
    """Which entries are of two different classes with examples."""
    return present[:, None] & present[None, :] & ~jnp.eye(present.size, dtype=bool)


def average(matrix: Float[Array, "k k"], pairs: Bool[Array, "k k"]) -> Float[Array, ""]:
    """Mean of the entries that `pairs` selects; 0 where it selects none."""
    return jnp.where(pairs, matrix, 0.0).sum() / jnp.maximum(pairs.sum(), 1)


def _weighted_gram(rows: Float[Array, "k d"], weights: Float[Array, "k"]) -> Float[Array, "d d"]:
    return matmul(rows.T * weights[None, :], rows)
