# SPDX-License-Identifier: Apache-2.0
"""How many clusters are there? Three answers, each with its evidence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from ncjax.cluster.solver import kmeans
from ncjax.cluster.points import HIGHEST, squared_norms

SILHOUETTE_POINTS = 2000
REFERENCES = 5  # of the gap statistic


class ClusterCounts(NamedTuple):
    """What each way would choose, and why; entry `i` of the evidence belongs to `k = i + 1`."""

    silhouette: int  # largest mean silhouette; never 1
    gap: int  # the smallest k whose gap is within one error of the next (Tibshirani, Walther and Hastie 2001)
    eigen_gap: int  # one more than the axes before the largest ratio of successive variances
    silhouettes: Float[np.ndarray, "k"]  # in [-1, 1]; nan for k = 1
    gaps: Float[np.ndarray, "k"]  # of log inertia, below that of uniform points
    gap_errors: Float[np.ndarray, "k"]
    variances: Float[np.ndarray, "k"]  # along the leading principal axes


def choose_k(
    key: Key[Array, ""], points: Float[Array, "n d"], most: int, *, restarts: int = 10, references: int = REFERENCES
) -> ClusterCounts:
    """Try `1..most` clusters of one set of points, say a super-class.

    The silhouette is the mean over up to 2,000 evenly spaced points, with distances among these. The gap compares the
    logarithm of the inertia with that of uniform points in the box of the principal axes. The eigen-gap looks at the
    variances along these axes alone: `k` clusters need `k - 1` strong ones.

    Args:
        key: randomness of k-means and of the uniform points.
        points: as for `kmeans`.
        most: clusters to try, at least 2.
        restarts: of each k-means.
        references: sets of uniform points.
    """
    centred = points - points.mean(axis=0, keepdims=True)
    values, axes = jnp.linalg.eigh(jnp.matmul(centred.T, centred, precision=HIGHEST) / points.shape[0])
    turned = jnp.matmul(centred, axes, precision=HIGHEST)
    low, high = turned.min(axis=0), turned.max(axis=0)
    sample = np.unique(np.linspace(0, len(points) - 1, min(len(points), SILHOUETTE_POINTS)).astype(np.int64))
    keys = jax.random.split(key, references)
    uniform = [low[None, :] + (high - low)[None, :] * jax.random.uniform(one, points.shape) for one in keys]
    silhouettes, logs, reference_logs = [np.nan], [], []
    for k in range(1, most + 1):
        found = kmeans(key, centred, k, restarts=restarts)
        logs.append(float(jnp.log(found.inertia)))
        reference_logs.append([float(jnp.log(kmeans(key, u, k, restarts=restarts).inertia)) for u in uniform])
        if k > 1:
            silhouettes.append(float(silhouette(centred[sample], found.labels[sample], k)))
    references_of_k = np.array(reference_logs)
    gaps = references_of_k.mean(axis=1) - np.array(logs)
    errors = references_of_k.std(axis=1) * np.sqrt(1 + 1 / references)
    enough = np.flatnonzero(gaps[:-1] >= gaps[1:] - errors[1:])
    variances = np.maximum(np.asarray(values, np.float64)[::-1], 1e-30)
    ratios = variances[: most - 1] / np.append(variances, 1e-30)[1:most]
    return ClusterCounts(
        silhouette=int(np.nanargmax(silhouettes)) + 1,
        gap=int(enough[0]) + 1 if enough.size else most,
        eigen_gap=int(ratios.argmax()) + 2,
        silhouettes=np.array(silhouettes),
        gaps=gaps,
        gap_errors=errors,
        variances=variances[:most],
    )


def silhouette(points: Float[Array, "n d"], labels: Array, k: int) -> Float[Array, ""]:
    """The mean of `(b - a) / max(a, b)`, a block of points at a time on the device.

    `a` is a point's mean distance to the others of its cluster and `b` the least mean distance to another cluster; a
    point alone in its cluster counts 0 (Rousseeuw 1987).
    """
    member = jax.nn.one_hot(labels, k, dtype=points.dtype)
    sizes, squares = member.sum(axis=0), squared_norms(points)

    def of_point(given: tuple[Array, Array]) -> Array:
        point, label = given
        products = jnp.matmul(points, point, precision=HIGHEST)
        distances = jnp.sqrt(jnp.maximum(squares + squared_norms(point) - 2 * products, 0.0))
        totals = jnp.matmul(distances, member, precision=HIGHEST)
        inside = totals[label] / jnp.maximum(sizes[label] - 1, 1)
        others = jnp.where((jnp.arange(k) == label) | (sizes == 0), jnp.inf, totals / jnp.maximum(sizes, 1))
        score = (others.min() - inside) / jnp.maximum(jnp.maximum(others.min(), inside), 1e-30)
        return jnp.where(sizes[label] > 1, score, 0.0)

    return lax.map(of_point, (points, labels), batch_size=256).mean()
