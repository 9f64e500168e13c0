# SPDX-License-Identifier: Apache-2.0
"""Examples scaled to length 1 and their moments by class: `1 - cosine` is half of their squared distance.

Distances of unit vectors are right however small they are, where `1 - cosine` would be rounding. An example that is 0 has
no direction: it stays 0, at distance 1 from all others, as scikit-learn has it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from ncjax.collapse.statistics import at_least_one
from ncjax.ops.products import matmul
from ncjax.storage.arrays import Frame


class UnitOrigin(NamedTuple):
    """A point that unit vectors are relative to: features are `length * direction` plus what is read.

    Attributes:
        direction: of length 1, or 0.
        length: 0 where features are read as they are.
    """

    direction: Float[Array, "d"]
    length: Float[Array, ""]


def unit_vectors(
    features: Float[Array, "n d"], origin: UnitOrigin
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    """Examples `x = o + z` scaled to length 1, minus the direction of `o`; and 1 for those that are 0, which stay 0.

    `x / |x| - o / |o| = (z - (|x| - |o|) o / |o|) / |x|` with `|x| - |o| = (2 z^T o + |z|^2) / (|x| + |o|)`, which does
    not cancel where `o` is far from 0.
    """
    direction, length = origin
    lengths = jnp.linalg.norm(features + length * direction[None, :], axis=1)
    zero = lengths == 0
    along, squares = matmul(features, direction), (features**2).sum(axis=1)
    longer = (2 * length * along + squares) / jnp.where(zero, 1.0, lengths + length)
    units = (features - longer[:, None] * direction[None, :]) / jnp.where(zero, 1.0, lengths)[:, None]
    return jnp.where(zero[:, None], -direction[None, :], units), zero.astype(features.dtype)


class UnitMoments(NamedTuple):
    """Moments of unit vectors by class.

    Attributes:
        origin: that they are relative to.
        means: of each class.
        squares: sum of the squared distances to the mean of the class, and of 1 for an example that is 0.
    """

    origin: UnitOrigin
    means: Float[Array, "k d"]
    squares: Float[Array, "k"]


def unit_origin(frame: Frame) -> UnitOrigin:
    """The origin of unit vectors for features in the units of a frame."""
    origin = frame.origin / frame.scale
    largest = np.abs(origin).max()
    length = largest * float(np.linalg.norm(origin / largest)) if largest else 0.0
    direction = origin / length if length else origin
    return UnitOrigin(jnp.asarray(direction, jnp.float32), jnp.float32(length))


def unit_moments(
    features: Float[Array, "n d"],
    labels: Int32[Array, "n"],
    weights: Float[Array, "n"],
    classes: int,
    origin: UnitOrigin,
) -> UnitMoments:
    """Moments of some examples."""
    units, zero = unit_vectors(features, origin)
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype) * weights[:, None]
    means = matmul(member.T, units) / at_least_one(member.sum(axis=0))[:, None]
    squares = ((units - means[labels]) ** 2).sum(axis=1) + zero
    return UnitMoments(origin, means, matmul(member.T, squares))


def merge_units(
    a: UnitMoments, b: UnitMoments, of_a: Float[Array, "k"], of_b: Float[Array, "k"]
) -> UnitMoments:
    """Moments of the examples of both, of which there are `of_a` and `of_b` (Chan, Golub and LeVeque 1983)."""
    share = of_b / at_least_one(of_a + of_b)
    apart = b.means - a.means
    squares = a.squares + b.squares + of_a * share * (apart**2).sum(axis=1)
    return UnitMoments(a.origin, a.means + apart * share[:, None], squares)
