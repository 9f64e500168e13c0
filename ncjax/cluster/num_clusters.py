# SPDX-License-Identifier: Apache-2.0
"""The number of clusters, by three methods, each with its evidence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from ncjax.cluster.points import squared_norms
from ncjax.cluster.solver import check_finite, kmeans
from ncjax.errors import UserError
from ncjax.ops.products import matmul

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


def choose_num_clusters(
    key: Key[Array, ""],
    points: Float[Array, "n d"],
    max_clusters: int,
    *,
    restarts: int = 10,
    references: int = REFERENCES,
) -> NumClusters:
    """Clusters one set of points, such as a super-class, into `1..max_clusters` clusters and compares the results.

    The silhouette (Rousseeuw 1987) is the mean of `(b - a) / max(a, b)` over up to 2,000 evenly spaced points, with
    distances among these: `a` is the mean distance to a point's own cluster, `b` the least one to another cluster. The
    gap (Tibshirani, Walther and Hastie 2001) is `E log W_k(uniform) - log W_k`, with the inertia `W_k` and uniform
    points in the bounding box along the principal axes. The eigen-gap compares the variances along these axes alone:
    `k` clusters need `k - 1` strong axes.

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
    centred = points - points.mean(axis=0, keepdims=True)
    covariance = matmul(centred.T, centred) / points.shape[0]
    check_finite(points, covariance)
    values, axes = jnp.linalg.eigh(covariance)
    rotated = matmul(centred, axes)
    low, high = rotated.min(axis=0), rotated.max(axis=0)
    sample = np.unique(np.linspace(0, len(points) - 1, min(len(points), SILHOUETTE_POINTS)).astype(np.int64))
    keys = jax.random.split(key, references)
    uniform = [low[None, :] + (high - low)[None, :] * jax.random.uniform(one, points.shape) for one in keys]
    silhouettes, logs, reference_logs = [np.nan], [], []
    for k in range(1, max_clusters + 1):
        found = kmeans(key, centred, k, restarts=restarts)
        logs.append(float(jnp.log(found.inertia)))
        reference_logs.append([float(jnp.log(kmeans(key, u, k, restarts=restarts).inertia)) for u in uniform])
        if k > 1:
            silhouettes.append(float(silhouette(centred[sample], found.labels[sample], k)))
    gaps, errors, gap = _gap_statistic(np.array(logs), np.array(reference_logs))
    variances = np.asarray(values, np.float64)[::-1]
    return NumClusters(
        silhouette=int(np.nanargmax(silhouettes)) + 1,
        gap=gap,
        eigen_gap=_eigen_gap(variances, max_clusters),
        silhouettes=np.array(silhouettes),
        gaps=gaps,
        gap_errors=errors,
        variances=np.maximum(variances, 1e-30)[:max_clusters],
    )


def _gap_statistic(
    logs: Float[np.ndarray, "k"], reference_logs: Float[np.ndarray, "k references"]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Gaps, their errors, and the first k whose gap is at least the next one minus its error."""
    gaps = reference_logs.mean(axis=1) - logs
    errors = reference_logs.std(axis=1) * np.sqrt(1 + 1 / reference_logs.shape[1])
    enough = np.flatnonzero(gaps[:-1] >= gaps[1:] - errors[1:])
    return gaps, errors, int(enough[0]) + 1 if enough.size else len(logs)


def _eigen_gap(variances: Float[np.ndarray, "d"], max_clusters: int) -> int:
    variances = np.maximum(variances, 1e-30)
    ratios = variances[: max_clusters - 1] / np.append(variances, 1e-30)[1:max_clusters]
    return int(ratios.argmax()) + 2


def silhouette(points: Float[Array, "n d"], labels: Array, k: int) -> Float[Array, ""]:
    """The mean silhouette `(b - a) / max(a, b)`, computed in blocks of points on the device.

    `a` is a point's mean distance to the others of its cluster and `b` the least mean distance to another cluster; a
    point alone in its cluster counts 0 (Rousseeuw 1987).
    """
    member = jax.nn.one_hot(labels, k, dtype=points.dtype)
    sizes, squares = member.sum(axis=0), squared_norms(points)

    def of_point(labelled: tuple[Array, Array]) -> Array:
        point, label = labelled
        products = matmul(points, point)
        distances = jnp.sqrt(jnp.maximum(squares + squared_norms(point) - 2 * products, 0.0))
        totals = matmul(distances, member)
        inside = totals[label] / jnp.maximum(sizes[label] - 1, 1)
        others = jnp.where((jnp.arange(k) == label) | (sizes == 0), jnp.inf, totals / jnp.maximum(sizes, 1))
        score = (others.min() - inside) / jnp.maximum(jnp.maximum(others.min(), inside), 1e-30)
        return jnp.where(sizes[label] > 1, score, 0.0)

    return lax.map(of_point, (points, labels), batch_size=256).mean()
