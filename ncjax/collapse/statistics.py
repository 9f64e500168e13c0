# SPDX-License-Identifier: Apache-2.0
"""First and second moments of features by class: small, mergeable, and all that most measures need.

Statistics of chunks, of devices or of fine classes are merged into those of the whole (Chan, Golub and LeVeque 1983).
Every mean is kept relative to an origin near the data, so that large offsets do no harm.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

HIGHEST = lax.Precision.HIGHEST
TINY = 1e-30
NARROW = 128  # columns: products of fewer are slower than what symmetry saves


class ClassStatistics(NamedTuple):
    """Moments of `k` classes; sums run over examples, of which a class may have none."""

    counts: Float[Array, "k"]  # examples, or the sums of their weights
    origin: Float[Array, "d"]  # a point near the data
    means: Float[Array, "k d"]  # from the origin; 0 for a class without examples
    squares: Float[Array, "k d"]  # sums of squared distances to the class mean, by feature
    within: Float[Array, "d d"]  # sum of outer products of the distances to the class means

    @property
    def variances(self) -> Float[Array, "k"]:
        """Mean squared distance to the class mean."""
        return self.squares.sum(axis=-1) / jnp.maximum(self.counts, TINY)

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """Covariance inside classes, every example weighing the same."""
        return self.within / jnp.maximum(self.counts.sum(axis=-1), TINY)[..., None, None]

    @property
    def mean(self) -> Float[Array, "d"]:
        """Mean of all examples, from the origin."""
        return self.counts @ self.means / jnp.maximum(self.counts.sum(), TINY)


@partial(jax.jit, static_argnames="classes")
def class_statistics(
    features: Float[Array, "n d"],
    labels: Int32[Array, "n"],
    classes: int,
    weights: Float[Array, "n"] | None = None,
    origin: Float[Array, "d"] | None = None,
) -> ClassStatistics:
    """Moments by class of features in memory.

    Args:
        features: `n` examples.
        labels: classes in `0..k-1`.
        classes: number of classes `k`.
        weights: of the examples, such as 0 for those that fill up a chunk; none: all 1.
        origin: a point near the data; none: the mean of these examples.
    """
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    if weights is not None:
        member *= weights[:, None]
    counts = member.sum(axis=0)
    if origin is None:
        share = member.sum(axis=1) / jnp.maximum(counts.sum(), TINY)
        origin = features[0] + share @ (features - features[:1])
    centred = features - origin[None, :]
    means = jnp.matmul(member.T, centred, precision=HIGHEST) / jnp.maximum(counts, TINY)[:, None]
    residual = centred - means[labels]
    squares = jnp.matmul(member.T, residual**2, precision=HIGHEST)
    if weights is not None:
        residual *= jnp.sqrt(weights)[:, None]
    return ClassStatistics(counts, origin, means, squares, gram(residual))


def gram(rows: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """`X^T X`, of which what symmetry gives is not computed: 5/8 of the products where `d` is large."""
    half, odd = divmod(rows.shape[1], 2)
    if odd or half < NARROW:
        return jnp.matmul(rows.T, rows, precision=HIGHEST)
    left, right = rows[:, :half], rows[:, half:]
    corner = jnp.matmul(left.T, right, precision=HIGHEST)
    return jnp.block([[gram(left), corner], [corner.T, gram(right)]])


@jax.jit
def merge(a: ClassStatistics, b: ClassStatistics) -> ClassStatistics:
    """Statistics of the examples of both; the origin is that of the first."""
    counts = a.counts + b.counts
    apart = b.means + (b.origin - a.origin)[None, :] - a.means
    share = b.counts / jnp.maximum(counts, TINY)
    return ClassStatistics(
        counts,
        a.origin,
        a.means + apart * share[:, None],
        a.squares + b.squares + (a.counts * share)[:, None] * apart**2,
        a.within + b.within + _gram(apart, a.counts * share),
    )


def merge_classes(statistics: ClassStatistics, super_class: Int32[Array, "f"], classes: int) -> ClassStatistics:
    """Statistics of `classes` super-classes from those of the fine classes: no example is looked at again.

    `sum_i |x_i - M|^2 = sum_i |x_i - m_i|^2 + sum_f n_f |m_f - M|^2`, and the same for outer products.
    """
    of = jax.nn.one_hot(super_class, classes, dtype=statistics.means.dtype) * statistics.counts[:, None]
    counts = of.sum(axis=0)
    means = jnp.matmul(of.T, statistics.means, precision=HIGHEST) / jnp.maximum(counts, TINY)[:, None]
    apart = statistics.means - means[super_class]
    owner = jax.nn.one_hot(super_class, classes, dtype=statistics.means.dtype)
    squares = statistics.squares + statistics.counts[:, None] * apart**2
    return ClassStatistics(
        counts,
        statistics.origin,
        means,
        jnp.matmul(owner.T, squares, precision=HIGHEST),
        statistics.within + _gram(apart, statistics.counts),
    )


def merge_devices(statistics: ClassStatistics, axis: str) -> ClassStatistics:
    """Statistics of the examples of all devices along a mesh axis, under `shard_map`: sums of small arrays."""
    origin = lax.pmean(statistics.origin, axis)
    own = statistics.means + (statistics.origin - origin)[None, :]
    counts = lax.psum(statistics.counts, axis)
    means = lax.psum(own * statistics.counts[:, None], axis) / jnp.maximum(counts, TINY)[:, None]
    apart = own - means
    squares = statistics.squares + statistics.counts[:, None] * apart**2
    within = statistics.within + _gram(apart, statistics.counts)
    return ClassStatistics(counts, origin, means, lax.psum(squares, axis), lax.psum(within, axis))


def _gram(rows: Float[Array, "k d"], weights: Float[Array, "k"]) -> Float[Array, "d d"]:
    return jnp.matmul(rows.T * weights[None, :], rows, precision=HIGHEST)
