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
from jaxtyping import Array, Bool, Float, Int32, PyTree

from ncjax.ops.products import gram, matmul
from ncjax.storage.arrays import takes_tensors


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
        return self.squares.sum(axis=-1) / at_least_one(self.counts)

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """Within-class covariance `S_W`; every example has the same weight."""
        return self.scatter / at_least_one(self.counts.sum(axis=-1))[..., None, None]

    @property
    def mean(self) -> Float[Array, "d"]:
        """Mean of all examples, minus the origin."""
        return self.counts @ self.means / at_least_one(self.counts.sum())


@takes_tensors
@partial(jax.jit, static_argnames="classes")
def class_statistics(
    features: Float[Array, "n d"],
    labels: Int32[Array, "n"],
    classes: int,
    weights: Float[Array, "n"] | None = None,
    origin: Float[Array, "d"] | None = None,
) -> ClassStatistics:
    """Moments by class of features in memory; one product `X^T X` and three passes over the features.

    Deviations are taken from the class means, and corrected for the rounding of these (the two-pass algorithm of Chan,
    Golub and LeVeque 1983): they are exact to the precision of the features, however far from 0 and however collapsed.

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
        origin = mean_of(features, member.sum(axis=1))
    centred = features - origin[None, :]
    means = matmul(member.T, centred) / at_least_one(counts)[:, None]
    residual = centred - means[labels]
    rounding = matmul(member.T, residual) / at_least_one(counts)[:, None]
    residual -= rounding[labels]
    squares = matmul(member.T, residual**2)
    if weights is not None:
        residual *= jnp.sqrt(weights)[:, None]
    return ClassStatistics(counts, origin, means + rounding, squares, gram(residual))


def mean_of(features: Float[Array, "n d"], weights: Float[Array, "n"]) -> Float[Array, "d"]:
    """The weighted mean, far from 0 too; the first example where all weights are 0."""
    return features[0] + weights / at_least_one(weights.sum()) @ (features - features[:1])


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
    share = b.counts / at_least_one(counts)
    return ClassStatistics(
        counts,
        a.origin,
        a.means + apart * share[:, None],
        a.squares + b.squares + (a.counts * share)[:, None] * apart**2,
        a.scatter + b.scatter + _weighted_gram(apart, a.counts * share),
    )


@takes_tensors
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
    means = matmul(weighted.T, statistics.means) / at_least_one(counts)[:, None]
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
    means = lax.psum(own * statistics.counts[:, None], axis) / at_least_one(counts)[:, None]
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


def squared_distances(
    residual: Float[Array, "n d"], anchor: Int32[Array, "n"], anchors: Float[Array, "a d"], points: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    """`|r|^2 + 2 r^T (a - p) + |a - p|^2` of examples `a + r`: right however close they, `a` and `p` are.

    Args:
        residual: `r`, the examples minus their anchors.
        anchor: which of the anchors is that of each example, such as the mean of its class.
        anchors: `a`.
        points: `p`, to which distances are computed.
    """
    own = jnp.take_along_axis(matmul(residual, anchors.T), anchor[:, None], axis=1)
    along = own - matmul(residual, points.T)
    between = pairwise_distances(anchors, points)[anchor]
    return jnp.maximum((residual**2).sum(axis=1)[:, None] + 2 * along + between, 0.0)


def split_nearest(
    rows: Float[Array, "n d"], points: Float[Array, "k d"], present: Bool[Array, "k"]
) -> tuple[Float[Array, "n d"], Int32[Array, "n"]]:
    """The rows minus a point near each of them, and which point that is; of those that are present."""
    far = jnp.where(present, (points**2).sum(axis=1), jnp.inf)
    nearest = (far[None, :] - 2 * matmul(rows, points.T)).argmin(axis=1).astype(jnp.int32)
    return rows - points[nearest], nearest


def pairwise_distances(a: Float[Array, "a d"], b: Float[Array, "b d"]) -> Float[Array, "a b"]:
    """Squared distances of few points, of their differences, so that large ones do not cancel."""
    return jax.lax.map(lambda point: ((b - point[None, :]) ** 2).sum(axis=-1), a)


def distinct_pairs(present: Bool[Array, "k"]) -> Bool[Array, "k k"]:
    """Which entries are of two different classes with examples."""
    return present[:, None] & present[None, :] & ~jnp.eye(present.size, dtype=bool)


def average(matrix: Float[Array, "k k"], pairs: Bool[Array, "k k"]) -> Float[Array, ""]:
    """Mean of the entries that `pairs` selects; NaN where it selects none."""
    return jnp.where(pairs, matrix, 0.0).sum() / pairs.sum()


def at_least_one(counts: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """Counts as divisors: 1 for those that are 0."""
    return jnp.where(counts > 0, counts, 1)


def where_defined(defined: Bool[Array, ""], values: PyTree) -> PyTree:
    """The values, NaN where they are not defined."""
    return jax.tree.map(lambda value: jnp.where(defined, value, jnp.nan), values)


def have_spread(statistics: ClassStatistics) -> Bool[Array, ""]:
    """Whether some class has two examples: else nothing is known of the variance inside classes."""
    return (statistics.counts > 1).any()


def _weighted_gram(rows: Float[Array, "k d"], weights: Float[Array, "k"]) -> Float[Array, "d d"]:
    return matmul(rows.T * weights[None, :], rows)
