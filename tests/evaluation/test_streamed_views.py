# SPDX-License-Identifier: Apache-2.0
"""Views that are embedded block by block are those of features in memory."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ncjax.collapse.reading import Labelled
from ncjax.evaluation import streamed_moments
from ncjax.evaluation.clusters import NEIGHBOURS
from ncjax.evaluation.streamed_clusters import SuperClasses
from ncjax.evaluation.streamed_views import embed_on_axes, products_of_groups, vote_for_others
from ncjax.evaluation.views import whitened_axes
from ncjax.ops.precision import double_precision
from tests.evaluation.test_views import embed

SIZES = np.array([2, 1, 2])


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(streamed_moments, "BLOCK_BYTES", 4 * 10 * 64)
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 3, 300).astype(np.int32)
    rows = (rng.normal(size=(3, 10))[owner] * 5 + rng.normal(size=(300, 10)) * np.arange(1, 11)).astype(np.float32)
    means = np.stack([rows[owner == group].mean(axis=0, dtype=np.float64) for group in range(3)])
    return Labelled(rows, owner), SuperClasses(owner, SIZES, means)


@pytest.mark.parametrize("memory", [1, 2**30])
def test_residual_pca_is_that_in_memory(data, memory):
    features, groups = data
    found = dict(products_of_groups(features, groups, memory))
    counts = np.bincount(groups.owner)
    largest = np.abs(features.rows).max()
    with double_precision():
        axes = np.stack(
            [np.asarray(whitened_axes(jnp.asarray(found[i] / counts[i]), jnp.asarray(largest))) for i in range(3)]
        )
    ours = embed_on_axes(features, groups, axes)
    for group in range(3):
        own = groups.owner == group
        wanted = embed("residual_pca", features.rows[own]).train
        np.testing.assert_allclose(np.abs(ours[own]), np.abs(wanted), rtol=1e-4, atol=1e-5)


def test_others_join_the_cluster_of_most_of_their_nearest(data):
    features, groups = data
    chosen = [np.flatnonzero(groups.owner == group)[::3] for group in range(3)]
    index = np.concatenate(chosen)
    labels = (features.rows[index, 9] > 0).astype(np.int32)
    found = vote_for_others(features, groups.owner, chosen, labels)
    np.testing.assert_array_equal(found[index], labels)
    for group, rows in enumerate(chosen):
        own = np.setdiff1d(np.flatnonzero(groups.owner == group), index)
        voters = KNeighborsClassifier(NEIGHBOURS).fit(features.rows[rows], (features.rows[rows, 9] > 0).astype(int))
        np.testing.assert_array_equal(found[own], voters.predict(features.rows[own]))
