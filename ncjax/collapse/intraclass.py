# SPDX-License-Identifier: Apache-2.0
"""Scores of intraclass clustering of one layer (Carbonnelle and De Vleeschouwer, ICLR 2021): c1, c3 and c4."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ncjax.collapse.record import Metric
from ncjax.collapse.statistics import ClassStatistics, row_norms
from ncjax.collapse.within import siblings
from ncjax.ops.products import gram, matmul
from ncjax.results import MetricInfo

TOP_NEURONS = 30  # of the paper


class Intraclass(NamedTuple):
    """Scores of the features as they are."""

    c1: Float[Array, ""]  # median over fine classes; neurons that tell one from its siblings
    c3: Float[Array, ""]  # mean over super-classes; neurons that vary inside one as much as over all


def neuron_scores(fine: ClassStatistics, coarse: ClassStatistics, super_class: Int32[Array, "f"]) -> Intraclass:
    """Scores c1 and c3, means over the 30 best neurons (all, where there are fewer).

    c1: median over fine classes of `(m_in - m_out) / (sd_in + sd_out)`, relative to the rest of the super-class; the
    sum of deviations counts as at least 1e-4 of the neuron's deviation over all examples, for a neuron that is silent
    in a super-class has neither difference nor deviation but rounding. c3: mean over super-classes of
    `sd(super-class) / sd(all)`.
    """
    top, merged = min(TOP_NEURONS, fine.means.shape[1]), siblings(fine.counts, super_class)
    total = (coarse.squares + coarse.counts[:, None] * (coarse.means - coarse.mean[None, :]) ** 2).sum(axis=0)
    everywhere = jnp.maximum(jnp.sqrt(total / coarse.counts.sum()), 1e-7)[None, :]
    means_out, deviations_out = jax.lax.map(partial(_pooled, fine), merged)
    deviations = jnp.sqrt(fine.squares / jnp.maximum(fine.counts, 1)[:, None]) + deviations_out
    ratios = (fine.means - means_out) / jnp.maximum(deviations, 1e-4 * everywhere)
    selectivity = jax.lax.top_k(ratios, top)[0].mean(axis=1)

    inside = jnp.sqrt(coarse.squares / jnp.maximum(coarse.counts, 1)[:, None])
    relative = jax.lax.top_k(inside / everywhere, top)[0].mean(axis=1)
    present = coarse.counts > 0
    return Intraclass(
        c1=jnp.nanmedian(jnp.where(merged.any(axis=1), selectivity, jnp.nan)),
        c3=jnp.where(present, relative, 0.0).sum() / present.sum(),
    )


def _pooled(fine: ClassStatistics, chosen: Bool[Array, "f"]) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    """Mean and standard deviation of each feature over some classes together; no difference of large sums."""
    counts = fine.counts * chosen
    total = jnp.maximum(counts.sum(), 1)
    mean = matmul(counts, fine.means) / total
    squares = matmul(counts, (fine.means - mean[None, :]) ** 2)
    squares += matmul(chosen.astype(counts.dtype), fine.squares)
    return mean, jnp.sqrt(squares / total)


@jax.jit
def cosine_deviation(
    points: Float[Array, "c m d"], weights: Float[Array, "c m"], counts: Float[Array, "c"]
) -> Float[Array, ""]:
    """Score c4: mean over super-classes of the standard deviation of all cosine distances in one, over that of all.

    With the mean `m` and the covariance `S` of unit vectors, the variance of their cosines over all pairs is
    `2 m^T S m + |S|_F^2`.

    Args:
        points: up to `m` examples of each super-class.
        weights: how often each counts; 0 for padding.
        counts: examples that each super-class has in all.
    """

    def moments(one: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, weight = one
        unit, share = rows / row_norms(rows)[:, None], weight / jnp.maximum(weight.sum(), 1)
        mean = matmul(share, unit)
        apart = (unit - mean[None, :]) * jnp.sqrt(share)[:, None]
        return mean, gram(apart)

    def deviation(mean: Array, covariance: Array) -> Array:
        return jnp.sqrt(2 * mean @ covariance @ mean + (covariance**2).sum())

    means, covariances = jax.lax.map(moments, (points, weights))
    part = counts / counts.sum()
    mean = part @ means
    apart = means - mean[None, :]
    between = matmul(apart.T * part[None, :], apart)
    everywhere = deviation(mean, jnp.tensordot(part, covariances, 1) + between)
    inside = jnp.where(counts > 0, jax.vmap(deviation)(means, covariances), 0.0)
    return inside.sum() / (counts > 0).sum() / jnp.maximum(everywhere, 1e-7)


_info = partial(MetricInfo, scope="within", better="higher")

C1 = Metric(function=neuron_scores, inputs="super_classes", outputs={"c1": _info(label="Carbonnelle c1")})
C3 = Metric(function=neuron_scores, inputs="super_classes", outputs={"c3": _info(label="Carbonnelle c3", low=0.0)})
C4 = Metric(function=cosine_deviation, inputs="subsample", outputs={"c4": _info(label="Carbonnelle c4", low=0.0)})
