# SPDX-License-Identifier: Apache-2.0
"""Which examples are kept to look at, their thumbnails and their principal axes."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from ncjax.data import Dataset
from ncjax.evaluation.clusters import chosen_for_plane
from ncjax.evaluation.examples import MOST_EXAMPLES, THUMBNAIL, choose_examples, two_axes
from ncjax.features.feature_set import FeatureSet
from tests.evaluation.arrays import MOD5, pairs


def test_examples_are_some_of_each_super_class_among_those_that_tsne_draws() -> None:
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 4, 9000)).astype(np.int32)
    features = FeatureSet.from_arrays(rng.normal(size=(9000, 3)).astype(np.float32), labels)
    found = choose_examples(features, label_map=(0, 0, 1, 1))
    assert len(found.rows) == MOST_EXAMPLES
    assert (np.diff(found.rows) > 0).all()
    np.testing.assert_array_equal(found.train_labels, labels)
    assert found.test_labels is None
    for group, first in ((0, 0), (1, 2)):
        members = np.flatnonzero(labels // 2 == group)
        own = found.rows[labels[found.rows] // 2 == group]
        assert len(own) == MOST_EXAMPLES // 2
        assert set(own) <= set(members[chosen_for_plane(len(members), first)])


def test_planes_are_principal_axes_of_all_and_of_each_super_class() -> None:
    features = pairs(3.0, count=200)
    found = choose_examples(features, label_map=MOD5)
    (plane,) = found.planes.values()
    x = np.asarray(features.train.layers["features"][0])[found.rows]
    owner = np.array(MOD5)[features.train.labels[found.rows]]
    for got, rows in [(plane.whole, owner >= 0), *((plane.inside, owner == group) for group in range(5))]:
        wanted = PCA(2, svd_solver="full").fit_transform(x[rows].astype(np.float64))
        np.testing.assert_allclose(np.abs(got[rows]), np.abs(wanted), atol=1e-3 * np.abs(wanted).max())


def test_at_most_ten_networks_have_planes_and_a_missing_label_map_is_one_group() -> None:
    x, y = np.random.default_rng(0).normal(size=(12, 30, 4)).astype(np.float32), np.arange(30) % 3
    found = choose_examples(FeatureSet.from_arrays(x, y))
    assert list(found.planes) == [f"features {number}" for number in range(10)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (np.ones((5, 3)), np.zeros((5, 2))),
        (np.ones((1, 3)), np.zeros((1, 2))),
        (np.array([[0.0], [2.0]]), np.array([[-1.0, 0.0], [1.0, 0.0]])),
        (np.array([[np.nan, 1.0], [0.0, 0.0], [2.0, 0.0]]), np.array([[np.nan] * 2, [-1.0, 0.0], [1.0, 0.0]])),
        (np.full((2, 2), np.inf), np.full((2, 2), np.nan)),
        (np.zeros((0, 4)), np.zeros((0, 2))),
    ],
)
def test_axes_of_few_equal_or_broken_points(points, expected) -> None:
    np.testing.assert_allclose(np.abs(two_axes(points.astype(np.float32))), np.abs(expected), atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (48, 48), (49, 30), (224, 160), (300, 3)])
def test_thumbnails_are_means_of_squares_and_small(size) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, *size, 3)).astype(np.uint8)
    labels = np.arange(12) % 2
    split = Dataset.from_arrays(images, labels, images, labels).train
    features = FeatureSet.from_arrays(rng.normal(size=(12, 4)).astype(np.float32), labels)
    found = choose_examples(features, images=split)
    assert max(found.thumbnails.shape[1:3]) <= THUMBNAIL
    step = -(-max(size) // THUMBNAIL)
    if min(size) >= step:
        for thumbnail, row in zip(found.thumbnails, found.rows, strict=True):
            cut = images[row, : size[0] // step * step, : size[1] // step * step]
            wanted = np.asarray(Image.fromarray(cut).reduce(step))
            np.testing.assert_allclose(thumbnail.astype(int), wanted.astype(int), atol=1)


def test_members_on_fine_labels_are_seen_under_the_default_map() -> None:
    features = pairs(3.0, count=100)
    from ncjax.data.label_maps import LabelMap

    under = dataclasses.replace(features, default_map=LabelMap.merge(MOD5))
    np.testing.assert_array_equal(
        choose_examples(under).planes["features"].inside,
        choose_examples(features, label_map=MOD5).planes["features"].inside,
    )
