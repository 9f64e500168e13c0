# SPDX-License-Identifier: Apache-2.0
"""Points sharded over devices are clustered as those of one device are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from sklearn.metrics import adjusted_rand_score

from ncjax.cluster import sharded_kmeans
from tests.cluster.test_in_memory import KEY, blobs, ours, wide


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(wide(), id="searched", marks=pytest.mark.slow),
        pytest.param(blobs(1003, 5, 4, spread=3.0), id="uneven"),
    ],
)
def test_eight_devices_give_the_answer_of_one(points):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    many = sharded_kmeans(KEY, jnp.asarray(points), 4, mesh=mesh)
    one = ours(points, 4)
    assert adjusted_rand_score(many.labels, one.labels) > 0.995  # rounding decides between two
    # a group in two halves, between which the inertia hardly changes
    np.testing.assert_allclose(np.sort(many.centroids, axis=0), np.sort(one.centroids, axis=0), atol=0.05)
    assert float(many.inertia) == pytest.approx(float(one.inertia), rel=1e-5)
    np.testing.assert_allclose(many.restart_inertia, one.restart_inertia, rtol=1e-2)


def test_an_empty_cluster_is_refilled_from_another_device():
    points = np.arange(64, dtype=np.float32)[:, None] ** 2
    far = jnp.asarray([[[10.0], [1e6], [2e6]]], jnp.float32)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    many = sharded_kmeans(KEY, jnp.asarray(points), 3, mesh=mesh, init=far, max_iterations=1)
    one = ours(points, 3, init=far, max_iterations=1)
    np.testing.assert_allclose(np.sort(many.centroids, axis=0)[1:, 0], [62.0**2, 63.0**2], rtol=1e-5)
    np.testing.assert_allclose(many.centroids, one.centroids, rtol=1e-5)
