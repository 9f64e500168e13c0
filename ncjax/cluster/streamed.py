# SPDX-License-Identifier: Apache-2.0
"""k-means of points that do not fit in memory."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ncjax.cluster.lloyd import assign, cluster_sums
from ncjax.cluster.points import Points
from ncjax.cluster.solver import KMeansResult, kmeans
from ncjax.errors import UserError
from ncjax.storage.arrays import Rows
from ncjax.storage.read_ahead import read_ahead

BLOCK_BYTES = 2**27  # read at once
SAMPLE_ROWS = 2**16  # of the subsample that the restarts run on
SAMPLE_ROWS_PER_CLUSTER = 512


def stream_kmeans(
    key: Key[Array, ""],
    points: Rows,
    k: int,
    *,
    restarts: int = 10,
    max_iterations: int = 300,
    tol: float = 1e-4,
    sample_rows: int = SAMPLE_ROWS,
    progress: bool = True,
) -> KMeansResult:
    """`kmeans` of an array on disk, streamed in blocks; memory does not grow with `n`, but for the labels.

    All restarts run on an evenly spaced subsample; the best one continues with all points, one pass over the file for
    each iteration, until its centroids move by at most `tol` (of the subsample's variance). Labels and inertia are
    exact for all points; sums over blocks are in float64. `restart_inertia` is that of the subsample.

    Args:
        key: randomness of the initial centroids.
        points: `[n d]`, for example `np.load(path, mmap_mode="r")` or `ncjax.features.store.open_features(...)`.
        k: number of clusters.
        restarts: on the subsample.
        max_iterations: passes over the file for iterations at most; one more gives the labels.
        tol: relative tolerance.
        sample_rows: rows of the subsample; at least 512 for each cluster are used.
        progress: show a bar for each pass.

    Raises:
        UserError: k does not fit, or points are not finite (the first rows are named).
    """
    n = points.shape[0]
    rows = np.linspace(0, n - 1, min(n, max(sample_rows, SAMPLE_ROWS_PER_CLUSTER * k))).astype(np.int64)
    sample = jnp.asarray(np.asarray(points[rows], np.float32))
    found = kmeans(key, sample, k, restarts=restarts, max_iterations=max_iterations, tol=tol)
    centre = sample.mean(axis=0)
    limit = tol * float(((sample - centre[None, :]) ** 2).mean())
    centroids = np.asarray(found.centroids - centre[None, :], np.float64)
    iterations, converged = 0, False
    while iterations < max_iterations and not converged:
        moved = _step(points, centre, centroids, f"k-means step {iterations + 1}", progress)
        converged = bool(((moved - centroids) ** 2).sum() <= limit)
        centroids, iterations = moved, iterations + 1
    labels, inertia = np.empty(n, np.int32), 0.0
    for first, block in _blocks(points, centre, "k-means labels", progress):
        part, added = _assign(block, jnp.asarray(centroids, jnp.float32))
        labels[first : first + part.shape[0]] = np.asarray(part)[: n - first]
        inertia += float(added)
    return KMeansResult(
        centroids=jnp.asarray(centroids + np.asarray(centre, np.float64), jnp.float32),
        labels=jnp.asarray(labels),
        inertia=jnp.float32(inertia),
        iterations=jnp.int32(iterations),
        converged=jnp.asarray(converged),
        restart_inertia=found.restart_inertia,
    )


def _step(points: Rows, centre: Array, centroids: np.ndarray, title: str, progress: bool) -> np.ndarray:
    """The means of the clusters; an empty one keeps its centroid."""
    sums, mass = np.zeros_like(centroids), np.zeros(len(centroids))
    for first, block in _blocks(points, centre, title, progress):
        found = _cluster_sums(block, jnp.asarray(centroids[None], jnp.float32))
        if not np.isfinite(float(found.inertia[0])):
            bad = first + np.flatnonzero(~np.isfinite(np.asarray(block.rows)).all(axis=1))
            raise UserError(f"k-means: points are not finite (rows {', '.join(map(str, bad[:5]))}...); remove them")
        sums += np.asarray(found.sums[0], np.float64)
        mass += np.asarray(found.mass[0], np.float64)
    return np.where(mass[:, None] > 0, sums / np.maximum(mass, 1)[:, None], centroids)


_cluster_sums = jax.jit(partial(cluster_sums, axis_name=None))
_assign = jax.jit(partial(assign, axis_name=None))


def _blocks(points: Rows, centre: Array, title: str, progress: bool) -> Iterator[tuple[int, Points]]:
    """First row and points of each block, all of one size: the last is padded with points of weight 0."""
    from tqdm import tqdm

    n, d = points.shape
    size = min(n, max(1, BLOCK_BYTES // (4 * d)))

    def read(first: int) -> Points:
        rows = np.zeros((size, d), np.float32)
        present = min(size, n - first)
        rows[:present] = np.asarray(points[first : first + present], np.float32)
        weights = (np.arange(size) < present).astype(np.float32)
        return Points(jnp.asarray(rows), jnp.asarray(weights), centre, jnp.int32(present))

    with tqdm(total=n, desc=title, unit="point", disable=not progress) as bar:
        for first, block in read_ahead((first, read(first)) for first in range(0, n, size)):
            yield first, block
            bar.update(min(size, n - first))
