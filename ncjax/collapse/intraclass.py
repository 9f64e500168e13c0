# SPDX-License-Identifier: Apache-2.0
"""Scores of intraclass clustering of one layer (Carbonnelle and De Vleeschouwer, ICLR 2021): c1, c3 and c4."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ncjax.collapse.reading import Subsample
from ncjax.collapse.record import Metric
from ncjax.collapse.statistics import ClassStatistics, at_least_one
from ncjax.collapse.units import unit_vectors
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
    `sd(super-class) / sd(all)`. Both are 0 for a neuron that is constant.
    """
    top, merged = min(TOP_NEURONS, fine.means.shape[1]), siblings(fine.counts, super_class)
    total = (coarse.squares + coarse.counts[:, None] * (coarse.means - coarse.mean[None, :]) ** 2).sum(axis=0)
    everywhere = jnp.sqrt(total / coarse.counts.sum())[None, :]
    constant = everywhere == 0
    means_out, deviations_out = jax.lax.map(partial(_pooled, fine), merged)
    deviations = jnp.sqrt(fine.squares / at_least_one(fine.counts)[:, None]) + deviations_out
    ratios = (fine.means - means_out) / jnp.where(constant, 1.0, jnp.maximum(deviations, 1e-4 * everywhere))
    selectivity = jax.lax.top_k(jnp.where(constant, 0.0, ratios), top)[0].mean(axis=1)

    inside = jnp.sqrt(coarse.squares / at_least_one(coarse.counts)[:, None])
    relative = jax.lax.top_k(inside / jnp.where(constant, 1.0, everywhere), top)[0].mean(axis=1)
    present = coarse.counts > 0
    return Intraclass(
        c1=jnp.nanmedian(jnp.where(merged.any(axis=1), selectivity, jnp.nan)),
        c3=jnp.where(present, relative, 0.0).sum() / present.sum(),
    )


def _pooled(fine: ClassStatistics, chosen: Bool[Array, "f"]) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    """Mean and standard deviation of each feature over some classes together; no difference of large sums."""
    counts = fine.counts * chosen
    total = at_least_one(counts.sum())
    mean = matmul(counts, fine.means) / total
    squares = matmul(counts, (fine.means - mean[None, :]) ** 2)
    squares += matmul(chosen.astype(counts.dtype), fine.squares)
    return mean, jnp.sqrt(squares / total)


@jax.jit
def cosine_deviation(sample: Subsample, counts: Float[Array, "c"]) -> Float[Array, ""]:
    """Score c4: mean over super-classes of the standard deviation of all cosine distances in one, over that of all.

    The cosine of two unit vectors is a constant minus `(a_i + a_j) / 2` plus `e_i^T e_j`, with their deviations `e`
    from the mean and `a = |e|^2`: its variance over all pairs is `var(a) / 2 + |S|_F^2`, `S` the covariance. No
    difference of nearly equal numbers is left. For an example that is 0, `a` is larger by 1.

    Args:
        sample: examples of each super-class.
        counts: examples that each super-class has in all.
    """
    part, shares = counts / counts.sum(), sample.weights / at_least_one(sample.weights.sum(axis=1))[:, None]

    def moments(one: tuple[Array, Array]) -> tuple[Array, Array]:
        units, _ = unit_vectors(one[0], sample.origin)
        mean = matmul(one[1], units)
        return mean, gram((units - mean[None, :]) * jnp.sqrt(one[1])[:, None])

    def lengths(one: tuple[Array, Array]) -> tuple[Array, Array]:
        units, zero = unit_vectors(one[0], sample.origin)
        inside, everywhere = (((units - of[None, :]) ** 2).sum(axis=1) + zero for of in (one[1], mean))
        return inside, everywhere

    def deviation(squares: Array, share: Array, covariance: Array) -> Array:
        apart = squares - (share * squares).sum()
        return jnp.sqrt((share * apart**2).sum() / 2 + (covariance**2).sum())

    means, covariances = jax.lax.map(moments, (sample.points, shares))
    mean = matmul(part, means)
    inside, everywhere = jax.lax.map(lengths, (sample.points, means))
    apart = means - mean[None, :]
    covariance = jnp.tensordot(part, covariances, 1) + matmul(apart.T * part[None, :], apart)
    of_all = deviation(everywhere, shares * part[:, None], covariance)
    of_each = jnp.where(counts > 0, jax.vmap(deviation)(inside, shares, covariances), 0.0)
    return of_each.sum() / (counts > 0).sum() / of_all


_info = partial(MetricInfo, scope="within", better="higher")

C1 = Metric(function=neuron_scores, inputs="super_classes", outputs={"c1": _info(label="Carbonnelle c1")})
C3 = Metric(function=neuron_scores, inputs="super_classes", outputs={"c3": _info(label="Carbonnelle c3", low=0.0)})
C4 = Metric(function=cosine_deviation, inputs="subsample", outputs={"c4": _info(label="Carbonnelle c4", low=0.0)})
