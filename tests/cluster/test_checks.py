# SPDX-License-Identifier: Apache-2.0
"""What cannot be meant is refused with its name, at every door of k-means alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from ncjax import KMeans
from ncjax.cluster import kmeans, sharded_kmeans, stream_kmeans
from ncjax.errors import UserError

POINTS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
KEY = jax.random.key(0)
WRONG = {
    "k": [0, -1, 2.0, 51, True, "3", None, float("nan")],
    "restarts": [0, -3, 1.5, True, "10", None],
    "max_iterations": [0, -1, 2.5, False, None, float("inf")],
    "tol": [-1.0, float("nan"), float("inf"), "0", None, True],
    "init": ["kmeans++", "", "k-means"],
}
CASES = [(name, value) for name, values in WRONG.items() for value in values]
NAMES = {"k": "n_clusters", "restarts": "n_init", "max_iterations": "max_iter", "tol": "tol", "init": "init"}


def sharded(points, k, **options):
    return sharded_kmeans(KEY, points, k, mesh=Mesh(np.array(jax.devices()), ("data",)), **options)


DOORS = {
    "memory": lambda points, k, **options: kmeans(KEY, points, k, **options),
    "sharded": sharded,
    "streamed": lambda points, k, **options: stream_kmeans(KEY, points, k, **options),
}


@pytest.mark.parametrize(("name", "value"), CASES, ids=str)
@pytest.mark.parametrize("door", DOORS)
def test_options_out_of_range_are_named(door, name, value):
    if door == "streamed" and name == "init":
        pytest.skip("a stream takes no initial centroids")
    options = {"k": 3, name: value}
    with pytest.raises((UserError, TypeError), match=rf"k-means: {name} is|'{name}'"):
        DOORS[door](jnp.asarray(POINTS), options.pop("k"), **options)


@pytest.mark.parametrize(("name", "value"), [case for case in CASES if case[1] != 51], ids=str)
def test_the_estimator_refuses_them_as_scikit_learns_does(name, value):
    with pytest.raises(ValueError, match=NAMES[name]):
        KMeans(**{"n_clusters": 3, NAMES[name]: value}).fit(POINTS)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.full(50, -1, np.float32), "weights must be finite and at least 0"),
        (np.full(50, np.nan, np.float32), "weights must be finite and at least 0"),
        (np.zeros(50, np.float32), "k is 3, but must be from 1 to the number of points, 0"),
        ((np.arange(50) < 2).astype(np.float32), "k is 3, but must be from 1 to the number of points, 2"),
    ],
)
def test_weights_that_do_not_fit_are_explained(weights, said):
    with pytest.raises(UserError, match=said):
        kmeans(KEY, jnp.asarray(POINTS), 3, weights=jnp.asarray(weights))
