# SPDX-License-Identifier: Apache-2.0
"""Variability of classes: between examples of pairs of classes, and by direction."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ncjax.collapse.record import Metric
from ncjax.collapse.statistics import (
    ClassStatistics,
    average,
    centred_means,
    distinct_pairs,
    have_spread,
    pairwise_distances,
    where_defined,
)
from ncjax.ops.linalg import eigh, eigvalsh, singular_values
from ncjax.ops.products import matmul
from ncjax.results import MetricInfo
from ncjax.storage.arrays import takes_tensors

FLOOR = 8.4  # roundings, of the largest within-class variance: that of a covariance; 1e-6 in float32


@jax.jit
def class_distances(statistics: ClassStatistics) -> Float[Array, "f f"]:
    """Mean squared distance between an example of class i and one of class j: `v_i + v_j + |m_i - m_j|^2`.

    Args:
        statistics: of `f` classes; `v` are their variances, `m` their means.

    Returns:
        Matrix `[f f]` of values at least 0, in squared units of the features; `2 v_i` on the diagonal.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> class_distances(class_statistics(x, y, 2)).tolist()
        [[2.0, 18.0], [18.0, 2.0]]
    """
    variances = statistics.variances
    return pairwise_distances(statistics.means, statistics.means) + variances[:, None] + variances[None, :]


@jax.jit
def cdnv(statistics: ClassStatistics) -> Float[Array, ""]:
    """Class-distance normalized variance, the mean over pairs of classes of `(v_i + v_j) / (2 |m_i - m_j|^2)`.

    Galanti, Gyorgy and Hutter (ICLR 2022).

    Args:
        statistics: of `k` classes; those without examples are left out.

    Returns:
        A scalar from 0, collapsed, without upper bound; NaN without two classes, or where no class has two examples.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> float(cdnv(class_statistics(x, y, 2)))
        0.0625
    """
    present, variances = statistics.counts > 0, statistics.variances
    pairs = distinct_pairs(present)
    apart = jnp.where(pairs, pairwise_distances(statistics.means, statistics.means), 1.0)
    return where_defined(
        have_spread(statistics), average((variances[:, None] + variances[None, :]) / (2 * apart), pairs)
    )


@jax.jit
def vci(statistics: ClassStatistics) -> Float[Array, ""]:
    """Variability collapse index `1 - tr(S_T^+ S_B) / r` with `S_T = S_W + S_B`, `r = min(d, K - 1)` (Xu and Liu 2023).

    Computed as the mean of `1 / (1 + s)` over the eigenvalues `s` of `S_W^-1 S_B`, which stays exact where `S_B` is
    much larger; a direction without within-class variance counts as one of `1e-6` of the largest (float32). Neurons are
    first scaled to the same within-class variance: in float32 their scales would hide the directions of small variance.

    Args:
        statistics: of `K` classes; those without examples are left out.

    Returns:
        A scalar from 0, collapsed, to 1; NaN as for `cdnv`. Invertible linear maps of the features do not change it.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> round(float(vci(class_statistics(x, y, 2))), 4)
        0.2
    """
    return within_class_spectrum(statistics).vci


@takes_tensors
@jax.jit
def effective_rank(eigenvalues: Float[Array, "d"]) -> Float[Array, ""]:
    """Effective rank `exp(-sum p log p)` of eigenvalues `p`, scaled to sum 1 (Roy and Vetterli 2007).

    Args:
        eigenvalues: of a covariance `[d]`; negative ones, which rounding leaves, count as 0.

    Returns:
        The number of directions that are used, from 1 to `d`; NaN where no eigenvalue is above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(effective_rank(jnp.array([3.0, 3.0, 3.0, 0.0]))), 4)
        3.0
    """
    values = jnp.maximum(eigenvalues, 0.0)
    share = values / values.max()
    share /= share.sum()
    return jnp.exp(-(share * jnp.log(jnp.where(share > 0, share, 1.0))).sum())


class WithinClassSpectrum(NamedTuple):
    """What needs all eigenvalues of the within-class covariance `S_W`."""

    vci: Float[Array, ""]
    effective_rank_within: Float[Array, ""]


@jax.jit
def within_class_spectrum(statistics: ClassStatistics) -> WithinClassSpectrum:
    """VCI and the effective rank of `S_W`."""
    means, present = centred_means(statistics)
    largest, floor = jnp.diagonal(statistics.scatter).max(), FLOOR * jnp.finfo(means.dtype).eps
    scale = jnp.where(largest > 0, largest, 1.0)
    scatter = statistics.scatter / scale
    sizes = jnp.sqrt(jnp.maximum(jnp.diagonal(scatter), floor))
    values, directions = eigh(scatter / (sizes[:, None] * sizes[None, :]))
    lengths = jnp.sqrt(jnp.maximum(values, floor * jnp.where(values[-1] > 0, values[-1], 1.0)))
    along = matmul(means / jnp.sqrt(scale) / sizes[None, :], directions) / lengths[None, :]
    separation = singular_values(along) ** 2 * (statistics.counts.sum() / present.sum())
    rank = jnp.minimum(present.sum() - 1, means.shape[1])
    index = jnp.where(jnp.arange(separation.size) < rank, 1 / (1 + separation), 0.0).sum() / rank
    index = jnp.where(largest > 0, index, jnp.where((means != 0).any(), 0.0, jnp.nan))
    rounding = (4 * jnp.finfo(means.dtype).eps) ** 2 * statistics.counts.sum() * (means**2).max()
    rank_within = where_defined(largest > rounding, effective_rank(eigvalsh(scatter)))
    return where_defined(have_spread(statistics), WithinClassSpectrum(index, rank_within))


@jax.jit
def effective_rank_of_all(statistics: ClassStatistics) -> Float[Array, ""]:
    """Effective rank of the covariance of all examples."""
    apart = statistics.means - statistics.mean[None, :]
    between = matmul(apart.T * statistics.counts[None, :], apart)
    return effective_rank(eigvalsh(statistics.covariance + between / statistics.counts.sum()))


CDNV = Metric(
    function=cdnv,
    inputs="statistics",
    outputs={"cdnv": MetricInfo(label="CDNV", short="CDNV", scope="level", low=0.0, better="lower")},
)
VCI = Metric(
    function=within_class_spectrum,
    inputs="statistics",
    outputs={"vci": MetricInfo(label="VCI", scope="level", low=0.0, high=1.0, better="lower")},
    eigenvalues=True,
)
RANK_WITHIN = Metric(
    function=within_class_spectrum,
    inputs="statistics",
    outputs={
        "effective_rank_within": MetricInfo(
            label="effective rank inside classes", short="effective rank, inside", scope="level", low=1.0
        )
    },
    eigenvalues=True,
)
RANK_OF_ALL = Metric(
    function=effective_rank_of_all,
    inputs="all",
    outputs={"effective_rank": MetricInfo(label="effective rank of all", scope="all", low=1.0)},
    eigenvalues=True,
)
