# SPDX-License-Identifier: Apache-2.0
"""Sums of many terms in float32 whose error does not grow with their number as that of plain ones does."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree


class Sums(NamedTuple):
    """Trees of the same shapes: the sum is that of both."""

    high: Any
    low: Any  # what rounding took from the other


def zero_sums(like: PyTree) -> Sums:
    """Sums of nothing, of the shapes and types of a tree of arrays."""
    return Sums(*(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like) for _ in range(2)))


def add_term(sums: Sums, term: PyTree) -> Sums:
    """Neumaier's sum (1974): the rounding of each addition is kept; under `jit`."""
    high = jax.tree.map(jnp.add, sums.high, term)
    return Sums(high, jax.tree.map(_with_lost, sums.high, sums.low, term, high))


def _with_lost(before: Array, low: Array, term: Array, after: Array) -> Array:
    larger = jnp.abs(before) >= jnp.abs(term)
    return low + jnp.where(larger, (before - after) + term, (term - after) + before)


def total_of(sums: Sums) -> Any:
    """The tree of sums, of arrays on the host, in float64."""
    return jax.tree.map(lambda high, low: np.asarray(high, np.float64) + np.asarray(low), *sums)
