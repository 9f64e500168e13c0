# SPDX-License-Identifier: Apache-2.0
"""Where k-means uses kernels of its own: on a GPU, where they can win, and where they were found to be right."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.cluster.points import Points
from ncjax.ops import pallas
from ncjax.ops.nearest import nearest_centroids
from ncjax.ops.segments import segment_sums

MOST_DIMENSIONS = 256  # of which a block of points stays in the registers
LEAST_CENTROIDS = 64  # below, all distances take less memory than the points
LEAST_POINTS = 4096


def has_kernel(points: Points, k: int) -> bool:
    """Whether the nearest of `k` centroids are found, and clusters summed, by kernels.

    Not where several processes work together: each tries the kernels for itself, and all have to choose alike.
    """
    (n, d), fits = points.rows.shape, points.centre is None and points.dtype == jnp.float32
    if not fits or n < LEAST_POINTS or k < LEAST_CENTROIDS or d > MOST_DIMENSIONS:
        return False
    alone = jax.default_backend() == "gpu" and jax.process_count() == 1
    return pallas.INTERPRET or (alone and _are_right(pallas.padded_width(d)))


@cache
def _are_right(width: int) -> bool:
    """Whether the kernels compile on this machine and give what the host gives: Pallas may change."""
    with ThreadPoolExecutor(1) as thread:  # which is in no trace, where this one may be
        try:
            thread.submit(_check, width).result()
        except Exception as error:
            warnings.warn(f"k-means goes on without its kernels, which fail here: {error}"[:300], stacklevel=2)
            return False
    return True


def _check(width: int) -> None:
    rng, k, n = np.random.default_rng(0), 100, 300
    rows, centroids = (rng.uniform(-1, 1, (count, width - 1)).astype(np.float32) for count in (n, k))
    scores = (centroids.astype(np.float64) ** 2).sum(axis=1) / 2 - rows.astype(np.float64) @ centroids.T
    labels, weights = scores.argmin(axis=1).astype(np.int32), np.ones(n, np.float32)
    found = jax.jit(nearest_centroids)(rows, centroids)
    sums, mass = jax.jit(segment_sums, static_argnums=3)(rows, weights, labels, k)
    np.testing.assert_allclose(np.stack(found[1:]), np.sort(scores, axis=1)[:, :2].T, atol=1e-6 * width)
    np.testing.assert_allclose(mass, np.bincount(labels, minlength=k))
    np.testing.assert_allclose(sums, np.eye(k)[labels].T @ rows, atol=1e-5)
