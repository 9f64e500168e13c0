# SPDX-License-Identifier: Apache-2.0
"""How far features have collapsed to labels."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

HIGHEST = lax.Precision.HIGHEST


class ClassStatistics(NamedTuple):
    """First and second moments of features by class, and how they vary inside classes."""

    means: Float[Array, "k d"]  # from the mean of all features, so that large offsets do no harm
    variances: Float[Array, "k"]  # mean squared distance to the class mean
    within: Float[Array, "d d"]  # covariance inside classes, averaged over examples


class Collapse(NamedTuple):
    """Neural-collapse measures; 0 means collapsed, there is no upper bound."""

    nc1: Float[Array, ""]
    nc1_ratio: Float[Array, ""]


@partial(jax.jit, static_argnames="classes")
def class_statistics(features: Float[Array, "n d"], labels: Int32[Array, "n"], classes: int) -> ClassStatistics:
    """Moments by class; every class must have an example."""
    centred = features - features.mean(axis=0)[None, :]
    member = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    counts = member.sum(axis=0)
    means = jnp.matmul(member.T, centred, precision=HIGHEST) / counts[:, None]
    residual = centred - means[labels]
    variances = (member.T @ (residual**2).sum(axis=1)) / counts
    return ClassStatistics(means, variances, jnp.matmul(residual.T, residual, precision=HIGHEST) / features.shape[0])


@jax.jit
def nc1(statistics: ClassStatistics) -> Collapse:
    """Variability inside classes against that between them.

    `nc1 = tr(S_W S_B^+) / K` (Papyan, Han and Donoho 2020) with the inverse taken on the `K - 1` directions of the
    class means alone, so it is never negative; `nc1_ratio = tr(S_W) / tr(S_B)` (Tirer et al. 2023). `S_B` is the
    covariance of the class means around their mean, each class weighing the same.
    """
    means = statistics.means - statistics.means.mean(axis=0)[None, :]
    classes = means.shape[0]
    _, singular, directions = jnp.linalg.svd(means, full_matrices=False)
    rank = min(classes - 1, means.shape[1])
    eigenvalues, directions = singular[:rank] ** 2 / classes, directions[:rank]
    along = jnp.einsum("kd,de,ke->k", directions, statistics.within, directions, precision=HIGHEST)
    sound = eigenvalues > 1e-10 * eigenvalues[0]
    inverse = jnp.where(sound, jnp.maximum(along, 0.0) / jnp.where(sound, eigenvalues, 1.0), 0.0)
    return Collapse(inverse.sum() / classes, jnp.trace(statistics.within) / eigenvalues.sum())


@jax.jit
def class_distances(statistics: ClassStatistics) -> Float[Array, "f f"]:
    """Mean squared distance between an example of class i and one of class j: `v_i + v_j + |m_i - m_j|^2`."""
    means, variances = statistics.means, statistics.variances
    between = ((means[:, None, :] - means[None, :, :]) ** 2).sum(axis=-1)
    return between + variances[:, None] + variances[None, :]
