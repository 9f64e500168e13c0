# SPDX-License-Identifier: Apache-2.0
"""Examples scaled to length 1 and their moments by class: `1 - cosine` is half of their squared distance.

Distances of unit vectors are right however small they are, where `1 - cosine` would be rounding. An example that is 0
has no direction: it stays 0, at distance 1 from all others, as scikit-learn has it.
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
    """A point far from 0 that unit vectors are relative to: examples are `length * direction` plus their features.

    Attributes:
        direction: of length 1.
        length: above 0.
    """

    direction: Float[Array, "d"]
    length: Float[Array, ""]


def unit_origin(frame: Frame) -> UnitOrigin | None:
    """The origin of unit vectors for features in the units of a frame; none where it has none."""
    origin = frame.origin / frame.scale
    largest = np.abs(origin).max()
    if not largest:
        return None
    length = float(largest * np.linalg.norm(origin / largest))
    return UnitOrigin(jnp.asarray(origin / length, jnp.float32), jnp.float32(length))


def unit_vectors(
    features: Float[Array, "n d"], origin: UnitOrigin | None
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    """Examples scaled to length 1, and 1 for those that are 0, which stay 0.

    With an origin `o`, examples are `x = o + z`, and the result is `|o| (x / |x| - o / |o|)`, where
    `x / |x| - o / |o| = (z - (|x| - |o|) o / |o|) / |x|` and `|x| - |o| = (2 z^T o + |z|^2) / (|x| + |o|)` do not
    cancel; 1 is `|o|^2` then.
    """
    if origin is None:
        lengths = jnp.linalg.norm(features, axis=1)
        zero = lengths == 0
        return features / jnp.where(zero, 1.0, lengths)[:, None], zero.astype(features.dtype)
    direction, length = origin
    shift = length * direction
    lengths = jnp.linalg.norm(features + shift[None, :], axis=1)
    zero = lengths == 0
    longer = (2 * length * matmul(features, direction) + (features**2).sum(axis=1)) / (lengths + length)
    units = (features - longer[:, None] * direction[None, :]) * (length / jnp.where(zero, 1.0, lengths))[:, None]
    return jnp.where(zero[:, None], -shift[None, :], units), zero * length**2


class UnitMoments(NamedTuple):
    """Moments of unit vectors by class.

    Attributes:
        origin: that they are relative to; none: 0.
        means: of each class.
        squares: sum of the squared distances to the mean of the class, and of 1 for an example that is 0.
    """

    origin: UnitOrigin | None
    means: Float[Array, "k d"]
    squares: Float[Array, "k"]


def unit_moments(
    features: Float[Array, "n d"],
    labels: Int32[Array, "n"],
    weights: Float[Array, "n"],
    classes: int,
    origin: UnitOrigin | None,
) -> UnitMoments:
    """Moments of some examples."""
    units, zero = unit_vectors(features, origin)
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype) * weights[:, None]
    means = matmul(member.T, units) / at_least_one(member.sum(axis=0))[:, None]
    squares = ((units - means[labels]) ** 2).sum(axis=1) + zero
    return UnitMoments(origin, means, matmul(member.T, squares))


def merge_units(a: UnitMoments, b: UnitMoments, of_a: Float[Array, "k"], of_b: Float[Array, "k"]) -> UnitMoments:
    """Moments of the examples of both, of which there are `of_a` and `of_b` (Chan, Golub and LeVeque 1983)."""
    share = of_b / at_least_one(of_a + of_b)
    apart = b.means - a.means
    squares = a.squares + b.squares + of_a * share * (apart**2).sum(axis=1)
    return UnitMoments(a.origin, a.means + apart * share[:, None], squares)
