# SPDX-License-Identifier: Apache-2.0
"""Points on disk are clustered as those in memory are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from ncjax.cluster import kmeans, stream_kmeans, streamed
from ncjax.errors import UserError
from ncjax.events import Event, listening
from ncjax.features.feature_set import FeatureSet, SplitFeatures
from ncjax.features.store import open_features
from ncjax.features.writing import save_features

KEY = jax.random.key(0)


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """1,000 points in blocks of 128, the last one not full."""
    monkeypatch.setattr(streamed, "BLOCK_BYTES", 128 * 4 * 6)
    points, _ = make_blobs(1000, 6, centers=4, cluster_std=1.0, random_state=0)
    np.save(tmp_path / "points.npy", points.astype(np.float32) + 100)
    return np.load(tmp_path / "points.npy", mmap_mode="r")


def test_same_answer_as_in_memory_from_a_sample(on_disk, monkeypatch):
    monkeypatch.setattr(streamed, "SAMPLE_ROWS_PER_CLUSTER", 32)
    events: list[Event] = []
    with listening(events.append):
        on_sample = stream_kmeans(KEY, on_disk, 4, sample_rows=300, tol=0.0)
    whole = kmeans(KEY, jnp.asarray(on_disk), 4, tol=0.0)
    assert adjusted_rand_score(on_sample.labels, whole.labels) == 1.0
    centroids = np.asarray(on_sample.centroids, np.float64)
    distances = ((np.asarray(on_disk, np.float64)[:, None] - centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(on_sample.labels, distances.argmin(axis=1))
    assert float(on_sample.inertia) == pytest.approx(distances.min(axis=1).sum(), rel=1e-5)
    assert bool(on_sample.converged)
    assert [event.done for event in events if event.state == "ended"] == [1000] * sum(not one.done for one in events)


def test_features_of_a_run_are_streamed(tmp_path, on_disk):
    points = np.stack([np.zeros_like(on_disk), on_disk])
    none = np.zeros(1000, np.int32)
    targets = np.stack([none, none])
    split = SplitFeatures(layers={"features": points}, labels=none, logits=points[:, :, :2], targets=targets)
    save_features(tmp_path, FeatureSet(train=split, test=split, epoch=3))
    found = stream_kmeans(KEY, open_features(tmp_path, 3, member=1), 4)
    expected = stream_kmeans(KEY, on_disk, 4)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.centroids, expected.centroids)
    with pytest.raises(UserError, match="no train features of epoch 4 in"):
        open_features(tmp_path, 4)
    with pytest.raises(UserError, match=r"no member 2 in .*: there are 2"):
        open_features(tmp_path, 3, member=2)


def test_bad_points_are_named(tmp_path, on_disk):
    with pytest.raises(UserError, match="k is 1001"):
        stream_kmeans(KEY, on_disk, 1001)
    broken = np.array(on_disk)
    broken[701] = np.nan
    with pytest.raises(UserError, match="rows 701"):
        stream_kmeans(KEY, broken, 4)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "float16"])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
def test_offset_and_type_change_no_inertia(monkeypatch, dtype, offset):
    if offset > {"float16": 0, "float32": 1e3}.get(dtype, np.inf):
        pytest.skip("the type does not hold such points")
    monkeypatch.setattr(streamed, "BLOCK_BYTES", 128 * 4 * 6)
    points = np.round(10 * make_blobs(1000, 6, centers=4, random_state=0)[0])
    found = stream_kmeans(KEY, (points + offset).astype(dtype), 4)
    whole = kmeans(KEY, points, 4)
    assert adjusted_rand_score(found.labels, whole.labels) == 1.0
    assert float(found.inertia) == pytest.approx(float(whole.inertia), rel=1e-5)
    np.testing.assert_allclose(
        np.sort(np.asarray(found.centroids, np.float64) - offset, axis=0), np.sort(whole.centroids, axis=0), atol=0.01
    )
