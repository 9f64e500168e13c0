# SPDX-License-Identifier: Apache-2.0
"""The validation split: of the training images alone, alike in memory and streamed; the test split is not used."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.data.dataset import channel_statistics
from ncjax.errors import UserError

NAMES = ("ant", "bee", "cow")
COUNTS = {"train": (20, 10, 5), "test": (4, 4, 4)}
RNG = np.random.default_rng(0)
PICTURES = {split: [RNG.integers(0, 256, (n, 6, 5, 3), np.uint8) for n in COUNTS[split]] for split in COUNTS}


@pytest.fixture
def folder(tmp_path):
    for split, of_classes in PICTURES.items():
        for name, pictures in zip(NAMES, of_classes, strict=True):
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for i, picture in enumerate(pictures):
                Image.fromarray(picture).save(place / f"{i:02}.png")
    return DataConfig(source="image_folder", path=str(tmp_path / "images"), cache_dir=str(tmp_path / "cache"))


def with_validation(config, fraction=0.2, **changes):
    return dataclasses.replace(config, validation_fraction=fraction, **changes)


def as_set(images):
    return {bytes(image) for image in images[:]}


@pytest.mark.parametrize("streamed", [False, True])
def test_training_and_validation_are_the_training_images_and_nothing_else(folder, streamed):
    dataset = load_dataset(with_validation(folder, streamed=streamed))
    train, validation = as_set(dataset.train.images), as_set(dataset.test.images)
    assert train.isdisjoint(validation)
    assert train | validation == {bytes(picture) for one in PICTURES["train"] for picture in one}
    assert np.bincount(dataset.train.labels).tolist() == [16, 8, 4]
    assert np.bincount(dataset.test.labels).tolist() == [4, 2, 1]
    for split in (dataset.train, dataset.test):
        for image, label in zip(split.images[:], split.labels, strict=True):
            assert bytes(image) in {bytes(picture) for picture in PICTURES["train"][label]}


def test_streamed_as_in_memory(folder):
    whole, streamed = (load_dataset(with_validation(folder, streamed=flag)) for flag in (False, True))
    for one, other in ((whole.train, streamed.train), (whole.test, streamed.test)):
        np.testing.assert_array_equal(one.images[:], other.images[:])
        np.testing.assert_array_equal(one.labels, other.labels)
        for ours, theirs in zip(channel_statistics(one.images), channel_statistics(other.images), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_it_says_so_and_is_another_data_set(folder):
    plain, one, other = (load_dataset(with_validation(folder, fraction)) for fraction in (0.0, 0.2, 0.4))
    assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert (plain.name, one.name) == ("images", "images, validation split")
    assert "7 of 35 training images are the validation split that data.validation_fraction 0.2 makes" in one.notes[-1]
    assert plain.notes == ()


def test_of_a_subset_and_the_same_each_time():
    config = DataConfig(train_examples=200, validation_fraction=0.1)
    first, second = load_dataset(config), load_dataset(config)
    assert len(first.train.labels) + len(first.test.labels) == 200
    np.testing.assert_array_equal(first.test.images, second.test.images)
    whole = load_dataset(DataConfig(train_examples=200))
    assert as_set(first.train.images) | as_set(first.test.images) == as_set(whole.train.images)


def test_what_does_not_fit_is_refused(folder):
    with pytest.raises(UserError, match=r"data\.validation_fraction is 1\.0, but must be from 0 to below 1"):
        DataConfig(validation_fraction=1.0)
    with pytest.raises(UserError, match=r"data\.test_examples is 9, but must be 0 where data\.validation_fraction"):
        DataConfig(validation_fraction=0.1, test_examples=9)
    with pytest.raises(UserError, match=r"one image, but data\.validation_fraction needs two"):
        load_dataset(with_validation(folder, train_examples=3))
