# SPDX-License-Identifier: Apache-2.0
"""How far features have collapsed to labels: pure functions of `ClassStatistics`, for `jax.vmap` over members.

Classes without examples are left out of every average, so members with different numbers of classes can share arrays.
`S_W` is the covariance inside classes, every example weighing the same; `S_B` is the covariance of the class means
around their mean, every class weighing the same.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ncjax.collapse.statistics import HIGHEST, TINY, ClassStatistics, class_statistics

__all__ = ["ClassStatistics", "Collapse", "class_distances", "class_statistics", "nc1"]
FLOOR = 1e-6  # of the largest variance inside classes: the rounding of a covariance in float32


class Collapse(NamedTuple):
    """NC1 in its two forms; 0 means collapsed, there is no upper bound."""

    nc1: Float[Array, ""]
    nc1_ratio: Float[Array, ""]


class Geometry(NamedTuple):
    """NC2, how far the class means are from a simplex equiangular tight frame; 0 where they are one.

    Papyan, Han and Donoho (PNAS 2020). `M` are the `K` class means from their mean.
    """

    equinorm: Float[Array, ""]  # standard deviation over mean of the lengths |M_c|
    equiangularity: Float[Array, ""]  # standard deviation of the cosines between them
    angle: Float[Array, ""]  # mean of |cosine + 1 / (K - 1)|
    etf: Float[Array, ""]  # | M M^T / |M M^T|_F - (I - 1 1^T / K) / sqrt(K - 1) |_F
    cosine_spectrum: Float[Array, "k"]  # eigenvalues of the cosines `[K K]`, falling; their sum is K
    effective_rank: Float[Array, ""]  # of M: exp of the entropy of its squared singular values, up to K - 1


def centred_means(statistics: ClassStatistics) -> tuple[Float[Array, "k d"], Bool[Array, "k"]]:
    """Class means from their mean, 0 for a class without examples, and which classes have some."""
    present = statistics.counts > 0
    weight = present / jnp.maximum(present.sum(), 1)
    means = statistics.means - jnp.matmul(weight, statistics.means, precision=HIGHEST)[None, :]
    return jnp.where(present[:, None], means, 0.0), present


@jax.jit
def nc1(statistics: ClassStatistics) -> Collapse:
    """Variability inside classes against that between them.

    `nc1 = tr(S_W S_B^+) / K` (Papyan, Han and Donoho 2020) with the inverse taken on the `K - 1` directions of the
    class means alone, so it is never negative; `nc1_ratio = tr(S_W) / tr(S_B)` (Tirer et al. 2023).
    """
    means, present = centred_means(statistics)
    _, singular, directions = jnp.linalg.svd(means, full_matrices=False)
    return _nc1(statistics.covariance, singular, directions, present.sum())


def _nc1(covariance: Array, singular: Array, directions: Array, classes: Array) -> Collapse:
    eigenvalues = singular**2 / classes
    along = jnp.einsum("kd,de,ke->k", directions, covariance, directions, precision=HIGHEST)
    sound = (eigenvalues > 1e-10 * eigenvalues[0]) & (jnp.arange(singular.size) < classes - 1)
    inverse = jnp.where(sound, jnp.maximum(along, 0.0) / jnp.where(sound, eigenvalues, 1.0), 0.0)
    return Collapse(inverse.sum() / classes, jnp.trace(covariance) / eigenvalues.sum())


@jax.jit
def geometry(statistics: ClassStatistics) -> Geometry:
    """NC2 of the class means."""
    means, present = centred_means(statistics)
    k = present.sum()
    gram = jnp.matmul(means, means.T, precision=HIGHEST)
    lengths = jnp.sqrt(jnp.diagonal(gram))
    mean_length = lengths.sum() / k
    spread = jnp.sqrt((jnp.where(present, lengths - mean_length, 0.0) ** 2).sum() / k)
    unit = means / jnp.maximum(lengths, TINY)[:, None]
    cosines = jnp.matmul(unit, unit.T, precision=HIGHEST)
    pairs = _pairs(present)
    eigenvalues = jnp.linalg.eigvalsh(gram)
    return Geometry(
        equinorm=spread / mean_length,
        equiangularity=jnp.sqrt(average((cosines - average(cosines, pairs)) ** 2, pairs)),
        angle=average(jnp.abs(cosines + 1 / (k - 1)), pairs),
        etf=_distance_to_etf(gram, present),
        cosine_spectrum=jnp.maximum(jnp.linalg.eigvalsh(cosines)[::-1], 0.0),
        effective_rank=effective_rank(eigenvalues),
    )


@jax.jit
def cdnv(statistics: ClassStatistics) -> Float[Array, ""]:
    """Class-distance normalised variance, the mean over pairs of `(v_i + v_j) / (2 |m_i - m_j|^2)`.

    Galanti, Gyorgy and Hutter (ICLR 2022); 0 means collapsed.
    """
    present, variances = statistics.counts > 0, statistics.variances
    pairs = _pairs(present)
    apart = jnp.where(pairs, _squared_distances(statistics.means), 1.0)
    return average((variances[:, None] + variances[None, :]) / (2 * apart), pairs)


class Spectrum(NamedTuple):
    """What needs all eigenvalues of `S_W`."""

    vci: Float[Array, ""]
    effective_rank_within: Float[Array, ""]  # of S_W


@jax.jit
def spectrum(statistics: ClassStatistics) -> Spectrum:
    """Variability collapse index `1 - tr(S_T^+ S_B) / r`, `S_T = S_W + S_B`, `r = min(d, K - 1)` (Xu and Liu 2023).

    From 0, collapsed, to 1; invertible linear maps of the features leave it as it is. Computed as the mean of
    `1 / (1 + s)` over the eigenvalues `s` of `S_W^-1 S_B`, which stays exact where `S_B` is much larger; a direction
    without variance inside classes counts as one of `1e-6` of the largest. Neurons are first brought to the same
    variance inside classes, for in float32 the scales of neurons would drown the directions of small variance.
    """
    means, present = centred_means(statistics)
    variances = jnp.diagonal(statistics.within)
    scale = jnp.maximum(variances.max(), TINY)
    sizes = jnp.sqrt(jnp.maximum(variances / scale, FLOOR))
    within = statistics.within / scale
    values, directions = jnp.linalg.eigh(within / (sizes[:, None] * sizes[None, :]))
    lengths = jnp.sqrt(jnp.maximum(values, FLOOR * jnp.maximum(values[-1], TINY)))
    along = jnp.matmul(means / sizes[None, :], directions, precision=HIGHEST) / lengths[None, :]
    separation = jnp.linalg.svd(along, compute_uv=False) ** 2 / (scale / statistics.counts.sum() * present.sum())
    rank = jnp.minimum(present.sum() - 1, means.shape[1])
    counted = jnp.arange(separation.size) < rank
    vci = jnp.where(counted, 1 / (1 + separation), 0.0).sum() / rank
    return Spectrum(vci, effective_rank(jnp.linalg.eigvalsh(within)))


class SelfDuality(NamedTuple):
    """NC3, how far a classifier's rows `W` are from the class means `M`; 0 where they are the same up to scale."""

    duality: Float[Array, ""]  # | W / |W|_F - M / |M|_F |_F, from 0 to 2
    etf: Float[Array, ""]  # | W M^T / |W M^T|_F - (I - 1 1^T / K) / sqrt(K - 1) |_F
    equinorm: Float[Array, ""]  # standard deviation over mean of the lengths of the rows of W


@jax.jit
def self_duality(statistics: ClassStatistics, weights: Float[Array, "k d"]) -> SelfDuality:
    """NC3 of a linear classifier `x -> W x + b` of the same classes (Papyan, Han and Donoho 2020)."""
    means, present = centred_means(statistics)
    weights = jnp.where(present[:, None], weights, 0.0)
    lengths, k = jnp.linalg.norm(weights, axis=1), present.sum()
    spread = jnp.sqrt((jnp.where(present, lengths - lengths.sum() / k, 0.0) ** 2).sum() / k)
    return SelfDuality(
        duality=jnp.linalg.norm(_unit(weights) - _unit(means)),
        etf=_distance_to_etf(jnp.matmul(weights, means.T, precision=HIGHEST), present),
        equinorm=spread / (lengths.sum() / k),
    )


@jax.jit
def effective_rank(eigenvalues: Float[Array, "d"]) -> Float[Array, ""]:
    """`exp(-sum p log p)` of eigenvalues `p`, scaled to sum 1 (Roy and Vetterli 2007): how many directions are used."""
    values = jnp.maximum(eigenvalues, 0.0)
    share = values / jnp.maximum(values.sum(), TINY)
    return jnp.exp(-(share * jnp.log(jnp.maximum(share, TINY))).sum())


@jax.jit
def covariance_rank(statistics: ClassStatistics) -> Float[Array, ""]:
    """Effective rank of the covariance of all examples."""
    apart = statistics.means - statistics.mean[None, :]
    between = jnp.matmul(apart.T * statistics.counts[None, :], apart, precision=HIGHEST)
    return effective_rank(jnp.linalg.eigvalsh(statistics.covariance + between / statistics.counts.sum()))


@jax.jit
def class_distances(statistics: ClassStatistics) -> Float[Array, "f f"]:
    """Mean squared distance between an example of class i and one of class j: `v_i + v_j + |m_i - m_j|^2`."""
    variances = statistics.variances
    return _squared_distances(statistics.means) + variances[:, None] + variances[None, :]


@partial(jax.jit, static_argnames="classes")
def kernel_nc1(gram: Float[Array, "n n"], labels: Int32[Array, "n"], classes: int) -> Collapse:
    """NC1 in the feature space of a kernel, from its Gram matrix alone (Kothapalli and Tirer 2025).

    With `B_c` the mean of the block of class c: `tr S_W = mean_i (K_ii - B_c(i))`, `tr S_B` the mean of `B_c` minus the
    mean over all pairs of classes. With `K = X X^T` both numbers are those of `nc1`.

    Args:
        gram: inner products of `n` examples.
        labels: classes in `0..k-1`, each with an example.
        classes: number of classes `k`.
    """
    member = jax.nn.one_hot(labels, classes, dtype=gram.dtype)
    to_mean = member / member.sum(axis=0)[None, :]
    with_means = jnp.matmul(gram, to_mean, precision=HIGHEST)
    between = jnp.matmul(to_mean.T, with_means, precision=HIGHEST)
    within = (jnp.diagonal(gram) - jnp.diagonal(between)[labels]).mean()
    centre = jnp.eye(classes) - 1 / classes
    values, vectors = jnp.linalg.eigh(centre @ between @ centre)
    values, vectors = values[::-1], vectors[:, ::-1]
    sound = (values > 1e-6 * values[0]) & (jnp.arange(classes) < classes - 1)
    coordinates = (with_means - between[labels]) @ (
        vectors * jnp.where(sound, 1 / jnp.where(sound, values, 1.0), 0.0)[None, :]
    )
    return Collapse((coordinates**2).mean(axis=0).sum(), within / (values.sum() / classes))


def average(matrix: Float[Array, "k k"], pairs: Bool[Array, "k k"]) -> Float[Array, ""]:
    """Mean of the entries that `pairs` names; 0 where it names none."""
    return jnp.where(pairs, matrix, 0.0).sum() / jnp.maximum(pairs.sum(), 1)


def _pairs(present: Bool[Array, "k"]) -> Bool[Array, "k k"]:
    """Which entries are of two different classes with examples."""
    return present[:, None] & present[None, :] & ~jnp.eye(present.size, dtype=bool)


def _squared_distances(means: Float[Array, "k d"]) -> Float[Array, "k k"]:
    return jax.lax.map(lambda mean: ((means - mean[None, :]) ** 2).sum(axis=-1), means)


def _distance_to_etf(gram: Float[Array, "k k"], present: Bool[Array, "k"]) -> Float[Array, ""]:
    k = present.sum()
    frame = jnp.diag(present.astype(gram.dtype)) - (present[:, None] & present[None, :]) / k
    return jnp.linalg.norm(_unit(gram) - frame / jnp.sqrt(k - 1))


def _unit(matrix: Array) -> Array:
    return matrix / jnp.maximum(jnp.linalg.norm(matrix), TINY)
