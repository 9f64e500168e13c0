# SPDX-License-Identifier: Apache-2.0
"""The number of clusters, and the silhouette against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score

from ncjax.cluster.choose import choose_k, silhouette


def test_silhouette_is_scikit_learns():
    points, labels = make_blobs(300, 4, centers=3, cluster_std=3.0, random_state=1)
    labels[0] = 3  # alone in its cluster
    points = points.astype(np.float32)
    ours = silhouette(jnp.asarray(points), jnp.asarray(labels, jnp.int32), 4)
    assert float(ours) == pytest.approx(silhouette_score(points.astype(np.float64), labels), abs=1e-4)


def test_two_clusters_are_two_for_all_ways():
    centres = 10 * np.eye(2, 6)
    points = make_blobs(600, centers=centres, cluster_std=0.5, random_state=0)[0].astype(np.float32)
    found = choose_k(jax.random.key(0), jnp.asarray(points), 3, restarts=3, references=2)
    assert (found.silhouette, found.gap, found.eigen_gap) == (2, 2, 2)
    assert found.silhouettes.shape == found.gaps.shape == found.variances.shape == (3,)
