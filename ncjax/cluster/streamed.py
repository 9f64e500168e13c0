# SPDX-License-Identifier: Apache-2.0
"""k-means of points that do not fit in memory."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Key

from ncjax.cluster.checks import check_options
from ncjax.cluster.in_memory import EXACT, condition, kmeans
from ncjax.cluster.lloyd import assign, cluster_sums
from ncjax.cluster.points import Points, squared_norms
from ncjax.cluster.solver import LEAST_SHARE, MOST_DOUBT, KMeansResult
from ncjax.errors import UserError
from ncjax.events import stage
from ncjax.ops.precision import double_precision
from ncjax.storage.arrays import Rows
from ncjax.storage.read_ahead import read_ahead

BLOCK_BYTES = 2**27  # read at once
SAMPLE_ROWS = 2**16  # of the subsample that the restarts run on
SAMPLE_ROWS_PER_CLUSTER = 512
FAR_ROWS = 2**14  # that join it, drawn by their squared distance to the first centroids
FAR_BYTES = 2**26  # of these at most


class Source(NamedTuple):
    """Where points come from, and how they are read: `(row - origin) / scale`."""

    rows: Rows
    given: np.dtype[Any]  # type of the rows
    origin: Float[np.ndarray, "d"]
    scale: float
    dtype: Any  # of what is computed


def stream_kmeans(
    key: Key[Array, ""],
    points: Rows,
    k: int,
    *,
    restarts: int = 10,
    max_iterations: int = 300,
    tol: float = 1e-4,
    sample_rows: int = SAMPLE_ROWS,
) -> KMeansResult:
    """`kmeans` of an array on disk, streamed in blocks; memory does not grow with `n`, but for the labels.

    All restarts run on a random sample. One pass draws more rows by their squared distance to the centroids found,
    which shows what the sample has missed; the restarts run again with these. The better of both solutions continues
    with all points, one pass over the file for each iteration, until its centroids move by at most `tol` (of the
    sample's variance). Labels and inertia are exact for all points; sums over blocks are in float64.
    `restart_inertia` is that of the sample.

    Args:
        key: randomness of the samples and of the initial centroids.
        points: `[n d]`, for example `np.load(path, mmap_mode="r")` or `ncjax.features.store.open_features(...)`.
        k: number of clusters.
        restarts: on the sample.
        max_iterations: passes over the file for iterations at most; two more draw rows and give the labels.
        tol: relative tolerance.
        sample_rows: rows of the sample; at least 512 for each cluster are used.

    Raises:
        UserError: an option is out of range, k does not fit, or points are not finite (the first rows are named).
    """
    check_options(k, "k-means++", restarts, max_iterations, tol)
    keys = jax.random.split(key, 3)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[0]), np.uint32))
    n = points.shape[0]
    chosen = _one_of_each_part(rng, n, min(n, max(sample_rows, SAMPLE_ROWS_PER_CLUSTER * k)))
    source, sample = _source(points, chosen)

    def search(key: Array, rows: np.ndarray, weights: np.ndarray | None) -> KMeansResult:
        return kmeans(key, rows, k, weights=weights, restarts=restarts, max_iterations=max_iterations, tol=tol)

    found = search(keys[1], sample, None)
    starts = [np.asarray(found.centroids, np.float64)]
    if len(chosen) < n:
        starts.append(_search_again(rng, source, sample, starts[0], lambda x, w: search(keys[2], x, w)))
    return _refine(source, np.stack(starts), max_iterations, tol * float(sample.var(axis=0).mean()), found)


def _source(points: Rows, chosen: Int[np.ndarray, "m"]) -> tuple[Source, Float[np.ndarray, "m d"]]:
    """The points as they are read, and the chosen ones of them."""
    read = np.asarray(points[chosen])
    sample = read.astype(np.float64)
    if not np.isfinite(sample).all():
        _refuse(chosen[~np.isfinite(sample).all(axis=1)])
    _, origin, scale = condition(sample, None)
    origin = origin[0].astype(_subtracted(read.dtype)).astype(np.float64)
    return Source(points, read.dtype, origin, float(scale.item()), jnp.float32), (sample - origin) / scale


def _subtracted(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which rows are centred: their own where it is float32 or float64."""
    return dtype if dtype.kind == "f" and dtype.itemsize >= 4 else np.dtype(np.float64)


def _one_of_each_part(rng: np.random.Generator, n: int, count: int) -> Int[np.ndarray, "count"]:
    """A row of each of `count` equal parts of the file, at random."""
    return np.minimum(((np.arange(count) + rng.random(count)) * n / count).astype(np.int64), n - 1)


def _search_again(
    rng: np.random.Generator,
    source: Source,
    sample: Float[np.ndarray, "m d"],
    centroids: Float[np.ndarray, "k d"],
    search: Callable[[np.ndarray, np.ndarray], KMeansResult],
) -> Float[np.ndarray, "k d"]:
    """Centroids of the sample and of rows that lie far from its centroids; weights make both count as all rows do."""
    n, m = source.rows.shape[0], len(sample)
    far, distances, inertia = _draw_far(rng, source, centroids)
    if inertia == 0:
        return centroids
    near = np.asarray(_distances(jnp.asarray(sample, jnp.float32), jnp.asarray(centroids, jnp.float32)), np.float64)
    share = np.concatenate([near, distances]) / inertia
    weights = 1 / (m / n + len(far) * share)
    return np.asarray(search(np.concatenate([sample, far]), weights.astype(np.float32)).centroids, np.float64)


def _draw_far(
    rng: np.random.Generator, source: Source, centroids: Float[np.ndarray, "k d"]
) -> tuple[Float[np.ndarray, "f d"], Float[np.ndarray, "f"], float]:
    """Rows drawn, with replacement, by squared distance to the nearest centroid; these distances; the sum of all.

    Each draw is replaced by one of a new block as often as the block holds of the sum so far (Chao 1982).
    """
    d = source.rows.shape[1]
    count = min(FAR_ROWS, max(1, FAR_BYTES // (8 * d)))
    rows, distances, inertia = np.zeros((count, d)), np.zeros(count), 0.0
    for _, block in _blocks(source, "k-means sample"):
        found = np.asarray(_distances(block.rows, jnp.asarray(centroids, block.rows.dtype)), np.float64)
        squares = found[: int(block.length)]
        added = float(squares.sum())
        if added == 0:
            continue
        inertia += added
        replaced = np.flatnonzero(rng.random(count) < added / inertia)
        drawn = rng.choice(len(squares), len(replaced), p=squares / added)
        rows[replaced], distances[replaced] = np.asarray(block.rows)[drawn], squares[drawn]
    return rows, distances, inertia


def _refine(
    source: Source, starts: Float[np.ndarray, "r k d"], max_iterations: int, limit: float, found: KMeansResult
) -> KMeansResult:
    """Lloyd's algorithm over all points from the better of several starts; in float64 where float32 does not do."""
    centroids, iterations, converged, total = starts, 0, False, np.inf
    while iterations < max_iterations and not converged:
        moved, inertia, total = _step(source, centroids, f"k-means step {iterations + 1}")
        best = int(inertia.argmin())
        converged = bool(((moved[best] - centroids[best]) ** 2).sum() <= limit)
        centroids, iterations = moved[best : best + 1], iterations + 1
    labels, ended, doubt = _labels(source, centroids[0])
    if source.dtype == jnp.float32 and (doubt > MOST_DOUBT * ended or 0 < ended < LEAST_SHARE * total):
        with double_precision():
            return _refine(source._replace(dtype=jnp.float64), starts, max_iterations, limit, found)
    wide = np.asarray(centroids[0] * source.scale + source.origin)
    return KMeansResult(
        centroids=wide if str(source.given) not in EXACT else jnp.asarray(wide, jnp.float32),
        labels=jnp.asarray(labels),
        inertia=np.asarray(ended * source.scale**2),
        iterations=jnp.int32(iterations),
        converged=jnp.asarray(converged),
        restart_inertia=np.asarray(found.restart_inertia, np.float64) * source.scale**2,
    )


def _step(
    source: Source, centroids: Float[np.ndarray, "r k d"], title: str
) -> tuple[Float[np.ndarray, "r k d"], Float[np.ndarray, "r"], float]:
    """The means of the clusters, where an empty one keeps its centroid; inertia before; that around the origin."""
    sums, mass = np.zeros_like(centroids), np.zeros(centroids.shape[:2])
    inertia, total = np.zeros(len(centroids)), 0.0
    for first, block in _blocks(source, title):
        found, squares = _sums(block, jnp.asarray(centroids, source.dtype))
        if not np.isfinite(float(squares)):
            _refuse(first + np.flatnonzero(~np.isfinite(np.asarray(block.rows)).all(axis=1)))
        sums += np.asarray(found.sums, np.float64)
        mass += np.asarray(found.mass, np.float64)
        inertia += np.asarray(found.inertia, np.float64)
        total += float(squares)
    return np.where(mass[..., None] > 0, sums / np.maximum(mass, 1)[..., None], centroids), inertia, total


def _labels(source: Source, centroids: Float[np.ndarray, "k d"]) -> tuple[Int32[np.ndarray, "n"], float, float]:
    """Labels, inertia, and how much of it rounding may have put into a wrong cluster."""
    n = source.rows.shape[0]
    labels, inertia, doubt = np.empty(n, np.int32), 0.0, 0.0
    for first, block in _blocks(source, "k-means labels"):
        found = _assign(block, jnp.asarray(centroids, source.dtype))
        labels[first : first + found.labels.shape[0]] = np.asarray(found.labels)[: n - first]
        inertia += float(found.inertia)
        doubt += float(found.doubt)
    return labels, inertia, doubt


@jax.jit
def _sums(block: Points, centroids: Array) -> Any:
    return cluster_sums(block, centroids, None), squared_norms(block.rows).sum()


@jax.jit
def _assign(block: Points, centroids: Array) -> Any:
    return assign(block, centroids, None)


@jax.jit
def _distances(rows: Float[Array, "n d"], centroids: Float[Array, "k d"]) -> Float[Array, "n"]:
    """Squared distance of each row to the nearest centroid, from differences."""

    def nearer(centroid: Array, least: Array) -> Array:
        return jnp.minimum(least, squared_norms(rows - centroid[None, :]))

    return jax.lax.fori_loop(
        0, len(centroids), lambda j, least: nearer(centroids[j], least), jnp.full(len(rows), jnp.inf, rows.dtype)
    )


def _blocks(source: Source, title: str) -> Iterator[tuple[int, Points]]:
    """First row and points of each block, all of one size: the last is padded with points of weight 0."""
    n, d = source.rows.shape
    size = min(n, max(1, BLOCK_BYTES // (4 * d)))
    one = jnp.ones((), source.dtype)

    def read(first: int) -> np.ndarray:
        part = np.asarray(source.rows[first : min(first + size, n)])
        part = part.astype(_subtracted(part.dtype), copy=False)
        rows = np.zeros((size, d), source.dtype)
        rows[: len(part)] = (part - source.origin.astype(part.dtype)) / part.dtype.type(source.scale)
        return rows

    with stage(title, total=n, unit="points") as advance:
        for first, rows in read_ahead((first, read(first)) for first in range(0, n, size)):
            present = min(size, n - first)
            weights = (np.arange(size) < present).astype(source.dtype)
            yield first, Points(jnp.asarray(rows), jnp.asarray(weights), None, one, jnp.int32(present))
            advance(present)


def _refuse(rows: Int[np.ndarray, "b"]) -> None:
    raise UserError(f"k-means: points are not finite (rows {', '.join(map(str, rows[:5]))}...); remove them")
