# SPDX-License-Identifier: Apache-2.0
"""Data sets whose images stay in their files, beside the same data set held in memory."""

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import Split, Streamed, load_dataset
from ncjax.data.dataset import channel_statistics
from ncjax.data.streamed import stream_split
from ncjax.errors import UserError
from tests.data.test_tfds import prepare

NAMES = ("ant", "bee", "cow")
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """A folder of 150 training and 12 test images: of more than one block."""
    for split, count in (("train", 50), ("test", 4)):
        for name in NAMES:
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(place / f"{i}.png")
    return DataConfig(source="image_folder", path=str(tmp_path / "images"), cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def records(tmp_path):
    features = {"image": tfds.features.Image(shape=(5, 4, 3)), "label": tfds.features.ClassLabel(names=list(NAMES))}
    images = RNG.integers(0, 256, (26, 5, 4, 3), dtype=np.uint8)
    rows = [{"image": image, "label": i % 3} for i, image in enumerate(images)]
    prepare(tmp_path / "sets" / "animals" / "1.0.0", {"train": rows[:20], "test": rows[20:]}, features)
    return DataConfig(
        source="tfds", tfds_name="animals", path=str(tmp_path / "sets"), cache_dir=str(tmp_path / "cache")
    )


def streamed(config, **changes):
    return dataclasses.replace(config, streamed=True, **changes)


def refused(config, *parts):
    with pytest.raises(UserError) as error:
        load_dataset(config)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def opened(monkeypatch):
    """The image files that are opened, by name."""
    names, really = [], Path.open

    def open_and_count(path, *args, **kwargs):
        names.append(f"{path.parent.name}/{path.name}")
        return really(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_and_count)
    return lambda: [name for name in names if name.endswith(".png")]


@pytest.mark.parametrize("source", ["folder", "records"])
@pytest.mark.parametrize("subset", [{}, {"train_examples": 17, "test_examples": 6}, {"image_size": 3}])
def test_streamed_equals_resident(source, subset, request):
    config = dataclasses.replace(request.getfixturevalue(source), **subset)
    resident, other = load_dataset(config), load_dataset(streamed(config))
    assert (other.name, other.class_names) == (resident.name, resident.class_names)
    for ours, theirs in ((other.train, resident.train), (other.test, resident.test)):
        assert isinstance(ours.images, Streamed)
        assert ours.images.shape == theirs.images.shape
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.images[:], theirs.images)
        rows = RNG.permutation(len(theirs.labels))[:5]
        np.testing.assert_array_equal(ours.images[rows], theirs.images[rows])
        for one, two in zip(channel_statistics(ours.images), channel_statistics(theirs.images), strict=True):
            np.testing.assert_array_equal(one, two)


def test_statistics_are_those_of_the_pixels(folder):
    images = load_dataset(folder).train.images
    mean, std = channel_statistics(images)
    pixels = images.reshape(-1, 3).astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-6)


def test_channels_of_one_value_have_a_spread_to_divide_by():
    mean, std = channel_statistics(np.full((5, 2, 2, 1), 51, np.uint8))
    np.testing.assert_allclose((mean[0], std[0]), (0.2, 1e-6))


def test_images_are_looked_at_once_then_read_when_indexed(folder, opened):
    load_dataset(streamed(folder))
    assert set(opened()) == {f"{name}/{i}.png" for name in NAMES for i in range(50)}
    before = len(opened())
    dataset = load_dataset(streamed(folder))
    assert set(opened()[before:]) == {"ant/0.png"}  # the first, for its size and colours
    before = len(opened())
    assert dataset.train.images[np.array([3, 77])].shape == (2, 6, 5, 3)
    assert sorted(opened()[before:]) == ["ant/11.png", "bee/33.png"]


def test_a_changed_file_is_looked_at_again(folder):
    first = channel_statistics(load_dataset(streamed(folder)).train.images)
    file = Path(folder.path) / "train" / "ant" / "0.png"
    Image.fromarray(np.full((6, 5, 3), 255, np.uint8)).save(file)
    os.utime(file, ns=(1, 1))
    again = channel_statistics(load_dataset(streamed(folder)).train.images)
    assert (again[0] > first[0]).all()


def test_a_damaged_image_is_named_before_training(folder):
    file = Path(folder.path) / "train" / "bee" / "7.png"
    file.write_bytes(file.read_bytes()[:40])
    refused(streamed(folder), str(file), "is not an image that can be read")


def test_an_image_that_is_damaged_later_is_named(folder):
    dataset = load_dataset(streamed(folder))
    file = Path(folder.path) / "train" / "ant" / "0.png"
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"ant/0\.png is not an image that can be read"):
        dataset.train.images[np.array([0])]


def test_a_damaged_record_file_is_named(records):
    file = Path(records.path) / "animals" / "1.0.0" / "animals-train.array_record-00001"
    content = file.read_bytes()
    record = content.index(b"\x89PNG") + 60
    file.write_bytes(content[:record] + b"xxx" + content[record + 3 :])
    refused(streamed(records), "TFDS set 'animals'", str(file), "prepare the set again")


def test_images_of_several_sizes_are_refused(tmp_path, folder):
    Image.fromarray(np.zeros((9, 5, 3), np.uint8)).save(Path(folder.path) / "train" / "cow" / "1.png")
    refused(streamed(folder), "cow/1.png is 5 x 9")
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
    rows = [{"image": np.zeros((5 + i // 3, 4, 3), np.uint8), "label": i % 3} for i in range(6)]
    prepare(tmp_path / "sets" / "animals" / "1.0.0", {"train": rows, "test": rows}, features)
    config = DataConfig(source="tfds", tfds_name="animals", path=str(tmp_path / "sets"), cache_dir=folder.cache_dir)
    refused(streamed(config), "split train: image 3 is (6, 4, 3), image 0 is (5, 4, 3)")
    refused(config, "split train: images are (5, 4, 3) and (6, 4, 3)", "data.image_size")
    whole, other = (load_dataset(dataclasses.replace(config, image_size=4, streamed=one)) for one in (False, True))
    assert whole.train.images.shape == (6, 4, 4, 3)
    np.testing.assert_array_equal(whole.train.images, other.train.images[:])


def test_processes_look_at_their_parts_and_put_them_together(folder, opened, monkeypatch):
    """Three processes, one after the other: the first two die where they would wait for the rest."""
    whole = load_dataset(streamed(folder))
    seen, sent = [], []

    def gather(mine):
        sent.append(mine)
        if len(sent) < 3:
            raise EOFError
        return tuple(np.stack(parts) for parts in zip(*sent, strict=True))

    monkeypatch.setattr("jax.process_count", lambda: 3)
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    for process in range(3):
        monkeypatch.setattr("jax.process_index", lambda process=process: process)
        before = len(opened())
        try:
            images = whole.train.images
            split = stream_split(images.reader, images.rows, Path(folder.cache_dir), "another key")
        except EOFError:
            split = None
        seen.append(set(opened()[before:]))
    assert isinstance(split, Split)
    np.testing.assert_array_equal(split.labels, whole.train.labels)
    np.testing.assert_array_equal(split.images.counts, whole.train.images.counts)
    assert [len(names - {"ant/0.png"}) for names in seen] == [49, 50, 50]
    assert set.union(*seen) == {f"{name}/{i}.png" for name in NAMES for i in range(50)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_examples": 151}, "data.train_examples is 151, but must be from 1 to 150"),
        ({"test_examples": 2}, "has no test image"),
        ({"path": "nowhere"}, "nowhere is not a folder"),
        ({"cache_dir": __file__}, "set data.cache_dir"),
    ],
)
def test_bad_input_is_one_line(folder, changes, message):
    refused(streamed(folder, **changes), message)


def test_without_grain_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    refused(streamed(folder), "data.streamed needs grain: pip install 'ncjax[stream]'")
