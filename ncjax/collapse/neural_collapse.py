# SPDX-License-Identifier: Apache-2.0
"""Neural collapse NC1 to NC4: pure functions of `ClassStatistics`, which `jax.vmap` maps over members.

Classes without examples are left out of every average, so members with different numbers of classes can share arrays.
`S_W` is the within-class covariance, every example with the same weight; `S_B` is the covariance of the class means
around their mean, every class with the same weight; `M` are the `K` class means minus their mean. Shift and scale of
the features change nothing. What is undefined is NaN: measures between classes where fewer than two have examples,
measures inside classes where none has two, angles where a class mean is at the mean of all.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ncjax.collapse.reading import Block, Classifier
from ncjax.collapse.record import Metric
from ncjax.collapse.statistics import (
    ClassStatistics,
    average,
    centred_means,
    distinct_pairs,
    have_spread,
    split_nearest,
    squared_distances,
    where_defined,
)
from ncjax.collapse.variability import effective_rank
from ncjax.ops.linalg import eigh, eigvalsh, svd
from ncjax.ops.products import HIGHEST, matmul
from ncjax.results import MetricInfo
from ncjax.storage.arrays import takes_tensors

ROUNDINGS = 8.4  # of numbers of length 1, which the difference of two of them may be


class NC1(NamedTuple):
    """Variability collapse; each is 0 where features have collapsed, without upper bound."""

    nc1: Float[Array, ""]  # tr(S_W S_B^+) / K
    nc1_ratio: Float[Array, ""]  # tr(S_W) / tr(S_B)
    separation: Float[Array, ""]  # tr(S_W S_B^+), the fuzziness D of He and Su (2023)


class NC2(NamedTuple):
    """How far the class means are from a simplex equiangular tight frame; the first four are 0 where they are one."""

    nc2_equinorm: Float[Array, ""]  # standard deviation over mean of the lengths |M_c|
    nc2_equiangularity: Float[Array, ""]  # standard deviation of the cosines between them
    nc2_angle: Float[Array, ""]  # mean of |cosine + 1 / (K - 1)|
    nc2_etf: Float[Array, ""]  # | M M^T / |M M^T|_F - (I - 1 1^T / K) / sqrt(K - 1) |_F
    effective_rank_means: Float[Array, ""]  # of M: exp of the entropy of its squared singular values, up to K - 1
    cosine_spectrum: Float[Array, "k"]  # eigenvalues of the cosines `[K K]`, falling; their sum is K


class NC3(NamedTuple):
    """Self-duality: how far a classifier's rows `W` are from the class means `M`; 0 where equal up to scale."""

    nc3: Float[Array, ""]  # | W / |W|_F - M / |M|_F |_F, from 0 to 2
    nc3_etf: Float[Array, ""]  # | W M^T / |W M^T|_F - (I - 1 1^T / K) / sqrt(K - 1) |_F
    nc3_equinorm: Float[Array, ""]  # standard deviation over mean of the lengths of the rows of W


@jax.jit
def nc1(statistics: ClassStatistics) -> NC1:
    """NC1, within-class variability relative to that between classes.

    `nc1 = tr(S_W S_B^+) / K` (Papyan, Han and Donoho, PNAS 2020), with the inverse taken on the `K - 1` directions of
    the class means alone, so it is never negative; `nc1_ratio = tr(S_W) / tr(S_B)` (Tirer et al. 2023);
    `separation = tr(S_W S_B^+)` (He and Su, PNAS 2023).

    Args:
        statistics: of `K` classes; those without examples are left out.

    Returns:
        Three scalars from 0, collapsed, without upper bound.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> [round(float(value), 4) for value in nc1(class_statistics(x, y, 2))]
        [0.125, 0.25, 0.25]
    """
    means, present = centred_means(statistics)
    classes, covariance = present.sum(), statistics.covariance
    _, singular, directions = svd(means)
    eigenvalues = singular**2 / classes
    along = jnp.einsum("kd,de,ke->k", directions, covariance, directions, precision=HIGHEST)
    sound = (singular > _rounding(means) * singular[0]) & (jnp.arange(singular.size) < classes - 1)
    inverse = jnp.where(sound, jnp.maximum(along, 0.0) / jnp.where(sound, eigenvalues, 1.0), 0.0)
    fuzziness, within = inverse.sum(), jnp.trace(covariance)
    apart = (classes > 1) & (singular[0] > _rounding(means) * jnp.sqrt(within))
    found = NC1(fuzziness / classes, within / eigenvalues.sum(), fuzziness)
    return where_defined(apart & have_spread(statistics), found)


@jax.jit
def nc2(statistics: ClassStatistics) -> NC2:
    """NC2, how far the class means are from a simplex equiangular tight frame (Papyan, Han and Donoho, PNAS 2020).

    Args:
        statistics: of `K` classes; those without examples are left out.

    Returns:
        `nc2_equinorm`, `nc2_equiangularity`, `nc2_angle` and `nc2_etf`, 0 for a simplex; `effective_rank_means`, up to
        `K - 1`; `cosine_spectrum` `[k]`, which for a simplex is `K / (K - 1)`, and 0 once.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> frame = jnp.eye(3) - 1 / 3
        >>> found = nc2(class_statistics(frame, jnp.arange(3), 3))
        >>> bool(found.nc2_etf < 1e-5), round(float(found.effective_rank_means), 3)
        (True, 2.0)
    """
    means, present = centred_means(statistics)
    means, k = means / jnp.abs(means).max(), present.sum()
    products = matmul(means, means.T)
    lengths = jnp.sqrt(jnp.diagonal(products))
    mean_length = lengths.sum() / k
    deviation = jnp.sqrt((jnp.where(present, lengths - mean_length, 0.0) ** 2).sum() / k)
    central = present & (lengths <= _rounding(means) * lengths.max())
    unit = means / jnp.where(central, jnp.nan, jnp.where(present, lengths, 1.0))[:, None]
    cosines = matmul(unit, unit.T)
    pairs = distinct_pairs(present)
    found = NC2(
        nc2_equinorm=deviation / mean_length,
        nc2_equiangularity=jnp.sqrt(average((cosines - average(cosines, pairs)) ** 2, pairs)),
        nc2_angle=average(jnp.abs(cosines + 1 / (k - 1)), pairs),
        nc2_etf=_distance_to_etf(products, present),
        effective_rank_means=effective_rank(eigvalsh(products)),
        cosine_spectrum=jnp.maximum(eigvalsh(cosines)[::-1], 0.0),
    )
    return where_defined(k > 1, found)


@takes_tensors
@jax.jit
def nc3(statistics: ClassStatistics, weights: Float[Array, "k d"]) -> NC3:
    """NC3, self-duality of a linear classifier `x -> W x + b` and the class means (Papyan, Han and Donoho, PNAS 2020).

    Args:
        statistics: of `K` classes; those without examples are left out.
        weights: `W`, a row `[d]` for each class.

    Returns:
        `nc3` and `nc3_etf`, from 0, self-dual, to 2; `nc3_equinorm`, from 0, without upper bound.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> frame = jnp.eye(3) - 1 / 3
        >>> found = nc3(class_statistics(frame, jnp.arange(3), 3), 5 * frame)
        >>> bool(found.nc3 < 1e-5)
        True
    """
    means, present = centred_means(statistics)
    weights, means = jnp.where(present[:, None], weights, 0.0), means / jnp.abs(means).max()
    weights /= jnp.abs(weights).max()
    lengths, k = jnp.linalg.norm(weights, axis=1), present.sum()
    deviation = jnp.sqrt((jnp.where(present, lengths - lengths.sum() / k, 0.0) ** 2).sum() / k)
    found = NC3(
        nc3=jnp.linalg.norm(_unit(weights) - _unit(means)),
        nc3_etf=_distance_to_etf(matmul(weights, means.T), present),
        nc3_equinorm=deviation / (lengths.sum() / k),
    )
    return where_defined(k > 1, found)


@takes_tensors
@jax.jit
def nc4(
    features: Float[Array, "n d"], means: ClassStatistics, weights: Float[Array, "k d"], bias: Float[Array, "k"]
) -> Float[Array, ""]:
    """NC4, share of examples to which the nearest class mean and the classifier `x -> W x + b` give other classes.

    Papyan, Han and Donoho (PNAS 2020).

    Args:
        features: `n` examples `[n d]`.
        means: statistics of the `k` classes, of the training split; those without examples are never the nearest.
        weights: `W` `[k d]`.
        bias: `b` `[k]`.

    Returns:
        A scalar from 0, the same decisions, to 1; NaN where fewer than two classes have a mean.

    Example:
        >>> import jax.numpy as jnp
        >>> from ncjax.collapse import class_statistics
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> float(nc4(x, class_statistics(x, y, 2), jnp.array([[-1.0], [1.0]]), jnp.array([0.0, 0.0])))
        0.25
    """
    return where_defined((means.counts > 0).sum() > 1, _disagree(features, means, weights, bias).mean())


@takes_tensors
@partial(jax.jit, static_argnames="classes")
def kernel_nc1(gram: Float[Array, "n n"], labels: Int32[Array, "n"], classes: int) -> NC1:
    """NC1 in the feature space of a kernel, from its Gram matrix alone (Kothapalli and Tirer 2025).

    With `B_c` the mean of the block of class c: `tr S_W = mean_i (K_ii - B_c(i))`, `tr S_B` the mean of `B_c` minus the
    mean over all pairs of classes. With `K = X X^T` the results are those of `nc1`.

    Args:
        gram: inner products of `n` examples `[n n]`.
        labels: classes in `0..k-1`, each with an example, int32 `[n]`.
        classes: number of classes `k`.

    Returns:
        Three scalars from 0, collapsed, without upper bound.

    Example:
        >>> import jax.numpy as jnp
        >>> x, y = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), jnp.array([0, 0, 1, 1])
        >>> [round(float(value), 3) for value in kernel_nc1(x @ x.T, y, 2)]
        [0.125, 0.25, 0.25]
    """
    member = jax.nn.one_hot(labels, classes, dtype=gram.dtype)
    to_mean = member / member.sum(axis=0)[None, :]
    with_means = matmul(gram, to_mean)
    between = matmul(to_mean.T, with_means)
    variance = (jnp.diagonal(gram) - jnp.diagonal(between)[labels]).mean()
    centre = jnp.eye(classes) - 1 / classes
    values, vectors = eigh(matmul(matmul(centre, between), centre))
    values, vectors = values[::-1], vectors[:, ::-1]
    sound = (values > _rounding(gram) * values[0]) & (jnp.arange(classes) < classes - 1)
    inverse = jnp.where(sound, 1 / jnp.where(sound, values, 1.0), 0.0)
    coordinates = matmul(with_means - between[labels], vectors * inverse[None, :])
    value = (coordinates**2).mean(axis=0).sum()
    defined = (values[0] > 0) & (labels.size > classes > 1)
    return where_defined(defined, NC1(value, variance / (values.sum() / classes), value * classes))


class Disagreements(NamedTuple):
    """Sums over examples."""

    disagreeing: Float[Array, ""]  # the weights of the examples that NC4 counts
    weight: Float[Array, ""]  # of all


@jax.jit
def disagreements(block: Block, means: ClassStatistics, classifier: Classifier) -> Disagreements:
    """Sums of the weights of the examples that NC4 counts, and of all."""
    differ = _disagree(block.features, means, *classifier)
    several = where_defined((means.counts > 0).sum() > 1, block.weights.sum())
    return Disagreements((differ * block.weights).sum(), several)


def _disagree(features: Array, means: ClassStatistics, weights: Array, bias: Array) -> Bool[Array, "n"]:
    logits = matmul(features, weights.T) + bias[None, :]
    centred, present = features - means.origin[None, :], means.counts > 0
    residual, anchor = split_nearest(centred, means.means, present)
    distances = squared_distances(residual, anchor, means.means, means.means)
    return jnp.where(present[None, :], distances, jnp.inf).argmin(axis=1) != logits.argmax(axis=1)


def _share(sums: Disagreements, statistics: ClassStatistics, weights: Array) -> Float[Array, ""]:
    return sums.disagreeing / sums.weight


def _rounding(array: Array) -> float:
    return ROUNDINGS * float(jnp.finfo(array.dtype).eps)


def _distance_to_etf(products: Float[Array, "k k"], present: Bool[Array, "k"]) -> Float[Array, ""]:
    k = present.sum()
    frame = jnp.diag(present.astype(products.dtype)) - (present[:, None] & present[None, :]) / k
    return jnp.linalg.norm(_unit(products) - frame / jnp.sqrt(k - 1))


def _unit(matrix: Array) -> Array:
    return matrix / jnp.linalg.norm(matrix)


_info = partial(MetricInfo, scope="level", low=0.0, better="lower")

VARIABILITY = Metric(
    function=nc1,
    inputs="statistics",
    outputs={
        "nc1": _info(label="NC1, tr(S_W S_B^+) / K", short="NC1"),
        "nc1_ratio": _info(label="NC1 ratio, tr S_W / tr S_B"),
        "separation": _info(label="separation D, tr(S_W S_B^+)"),
    },
)
SIMPLEX = Metric(
    function=nc2,
    inputs="statistics",
    outputs={
        "nc2_equinorm": _info(label="NC2: lengths of the means, sd / mean", short="NC2 lengths"),
        "nc2_equiangularity": _info(label="NC2: cosines of the means, sd", high=1.0),
        "nc2_angle": _info(label="NC2: mean of abs(cosine + 1/(K-1))", short="NC2 angles", high=2.0),
        "nc2_etf": _info(label="NC2: distance to the simplex ETF", high=2.0),
    },
)
RANK_OF_MEANS = Metric(
    function=nc2,
    inputs="statistics",
    outputs={
        "effective_rank_means": MetricInfo(
            label="effective rank of the means", short="effective rank, means", scope="level", low=1.0
        )
    },
)
COSINE_SPECTRUM = Metric(
    function=nc2,
    inputs="statistics",
    outputs={"cosine_spectrum": MetricInfo(label="cosine spectrum of the means", scope="level", low=0.0)},
)
SELF_DUALITY = Metric(
    function=nc3,
    inputs="classifier",
    outputs={
        "nc3": _info(label="NC3: classifier and means", short="NC3", high=2.0),
        "nc3_etf": _info(label="NC3: W M^T to the simplex ETF", high=2.0),
        "nc3_equinorm": _info(label="NC3: lengths of the rows of W, sd / mean"),
    },
)
NEAREST_MEAN = Metric(
    function=_share,
    inputs="classifier",
    outputs={"nc4": _info(label="NC4: nearest mean and classifier differ", short="NC4", high=1.0)},
    sums=disagreements,
)
