# SPDX-License-Identifier: Apache-2.0
"""The number of clusters, by three methods, each with its evidence."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, Num

from ncjax.cluster.checks import check_finite
from ncjax.cluster.in_memory import condition, kmeans
from ncjax.cluster.points import squared_norms
from ncjax.errors import UserError
from ncjax.ops.precision import double_precision
from ncjax.ops.products import matmul
from ncjax.storage.arrays import takes_tensors

SILHOUETTE_POINTS = 2000
REFERENCES = 5  # of the gap statistic


class NumClusters(NamedTuple):
    """The number of clusters that each method chooses, and why; entry `i` of the evidence belongs to `k = i + 1`.

    Attributes:
        silhouette: of the largest mean silhouette; never 1.
        gap: the smallest k whose gap is within one error of the next one (Tibshirani, Walther and Hastie 2001).
        eigen_gap: one more than the number of axes before the largest ratio of successive variances; never 1.
        silhouettes: mean silhouettes, in [-1, 1]; nan for k = 1.
        gaps: mean logarithm of the inertia of uniform points, minus that of the points.
        gap_errors: standard errors of the gaps.
        variances: along the leading principal axes, in squared units of the points.
    """

    silhouette: int
    gap: int
    eigen_gap: int
    silhouettes: Float[np.ndarray, "k"]
    gaps: Float[np.ndarray, "k"]
    gap_errors: Float[np.ndarray, "k"]
    variances: Float[np.ndarray, "k"]


@takes_tensors
def choose_num_clusters(
    key: Key[Array, ""],
    points: Num[Array | np.ndarray, "n d"],
    max_clusters: int,
    *,
    restarts: int = 10,
    references: int = REFERENCES,
) -> NumClusters:
    """Clusters one set of points, such as a super-class, into `1..max_clusters` clusters and compares the results.

    The silhouette (Rousseeuw 1987) is the mean of `(b - a) / max(a, b)` over up to 2,000 points drawn at random, with
    distances among these: `a` is the mean distance to a point's own cluster, `b` the least one to another cluster. The
    gap (Tibshirani, Walther and Hastie 2001) is `E log W_k(uniform) - log W_k`, with the inertia `W_k` and uniform
    points in the bounding box along the principal axes. The eigen-gap compares the variances along these axes: `k`
    clusters need `k - 1` strong axes, and those behind them hold noise, at least what `k` clusters leave on each axis.

    Args:
        key: randomness of k-means and of the uniform points.
        points: as for `kmeans`.
        max_clusters: largest number of clusters, from 2 to `n`.
        restarts: of each k-means.
        references: sets of uniform points, at least 1.

    Returns:
        The choice of each method, with the numbers that it rests on.

    Raises:
        UserError: max_clusters is out of range, or points are not finite (their rows are named).

    Example:
        >>> import jax
        >>> from ncjax import choose_num_clusters
        >>> centres = 10 * jax.numpy.repeat(jax.numpy.eye(2, 4), 20, axis=0)
        >>> points = centres + jax.random.normal(jax.random.key(0), (40, 4))
        >>> choice = choose_num_clusters(jax.random.key(1), points, 3, restarts=1, references=1)
        >>> choice.silhouette, choice.gap, choice.eigen_gap
        (2, 2, 2)
    """
    if not 2 <= max_clusters <= len(points):
        raise UserError(f"max_clusters is {max_clusters}, but must be from 2 to the number of points, {len(points)}")
    check_finite(points, points)
    centred, _, scale = condition(points, None)
    variances, axes = (x[..., ::-1] for x in np.linalg.eigh(centred.T @ centred / len(points)))
    rotated = centred @ axes
    low, spread = rotated.min(axis=0), np.ptp(rotated, axis=0)
    *keys, key, draw = jax.random.split(key, references + 2)
    uniform = [low + spread * np.asarray(jax.random.uniform(one, points.shape), np.float64) for one in keys]
    sample = np.asarray(jax.random.permutation(draw, len(points)))[:SILHOUETTE_POINTS]
    silhouettes, inertias, logs = [np.nan], [], []
    for k in range(1, max_clusters + 1):
        found = kmeans(key, centred, k, restarts=restarts)
        inertias.append(float(found.inertia))
        logs.append([float(kmeans(key, one, k, restarts=restarts).inertia) for one in uniform])
        if k > 1:
            silhouettes.append(silhouette(centred[sample], np.asarray(found.labels)[sample], k))
    with np.errstate(divide="ignore"):
        gaps, errors, gap = _gap_statistic(np.log(inertias), np.log(logs))
    noise = np.array(inertias) / (len(points) * max(1, _rank(variances)))
    return NumClusters(
        silhouette=int(np.nanargmax(silhouettes)) + 1,
        gap=gap,
        eigen_gap=_eigen_gap(variances, noise),
        silhouettes=np.array(silhouettes),
        gaps=gaps,
        gap_errors=errors,
        variances=np.maximum(variances[:max_clusters], 0.0) * scale.item() ** 2,
    )


def _gap_statistic(
    logs: Float[np.ndarray, "k"], reference_logs: Float[np.ndarray, "k references"]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Gaps, their errors, and the first k whose gap is at least the next one minus its error."""
    gaps = reference_logs.mean(axis=1) - logs
    errors = reference_logs.std(axis=1) * np.sqrt(1 + 1 / reference_logs.shape[1])
    enough = np.flatnonzero(gaps[:-1] >= gaps[1:] - errors[1:])
    return gaps, errors, int(enough[0]) + 1 if enough.size else len(logs)


def _rank(variances: Float[np.ndarray, "d"]) -> int:
    """How many variances are more than rounding."""
    return int((variances > np.finfo(np.float64).eps * len(variances) * variances[0]).sum())


def _eigen_gap(variances: Float[np.ndarray, "d"], noise: Float[np.ndarray, "k"]) -> int:
    """The k of the largest ratio of the variance along axis k - 1 to that along axis k, or to the noise of k clusters.

    Where there are few axes, the one behind the last, of variance 0, is no evidence: what k clusters leave is.
    """
    known = variances[: _rank(variances)]
    padded = np.append(known, np.zeros(len(noise)))
    behind = np.maximum(padded[1 : len(noise)], noise[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(padded[: len(noise) - 1] > 0, padded[: len(noise) - 1] / behind, 0.0)
    return int(ratios.argmax()) + 2


def silhouette(points: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], k: int) -> float:
    """The mean silhouette `(b - a) / max(a, b)`, in float64, computed in blocks of points on the device.

    `a` is a point's mean distance to the others of its cluster and `b` the least mean distance to another cluster; a
    point alone in its cluster counts 0 (Rousseeuw 1987).
    """
    with double_precision():
        return float(_silhouette(np.asarray(points, np.float64), np.asarray(labels, np.int32), k))


@partial(jax.jit, static_argnames="k")
def _silhouette(points: Array, labels: Array, k: int) -> Float[Array, ""]:
    member = jax.nn.one_hot(labels, k, dtype=points.dtype)
    sizes = member.sum(axis=0)

    def of_point(labelled: tuple[Array, Array]) -> Array:
        point, label = labelled
        distances = jnp.sqrt(squared_norms(points - point[None, :]))
        totals = matmul(distances, member)
        inside = totals[label] / jnp.maximum(sizes[label] - 1, 1)
        others = jnp.where((jnp.arange(k) == label) | (sizes == 0), jnp.inf, totals / jnp.maximum(sizes, 1)).min()
        larger = jnp.maximum(others, inside)
        return jnp.where((sizes[label] > 1) & (larger > 0), (others - inside) / jnp.where(larger > 0, larger, 1.0), 0.0)

    return lax.map(of_point, (points, labels), batch_size=16).mean()
