# SPDX-License-Identifier: Apache-2.0
import dataclasses
import doctest
import functools
import gzip
import io
import os
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import SOURCES, dataset, label_maps, load_dataset, sources
from ncjax.errors import UserError

RNG = np.random.default_rng(0)


def refused(config, *parts):
    with pytest.raises(UserError) as error:
        load_dataset(config)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", [sources, dataset, label_maps], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# ------------------------------------------------------------------ digits and subsets


def test_digits():
    dataset = load_dataset(DataConfig(source="digits"))
    assert len(dataset.train.labels) + len(dataset.test.labels) == 1797
    assert dataset.train.images.shape[1:] == (8, 8, 1)
    assert dataset.train.images.max() == 255
    assert np.bincount(dataset.test.labels).min() > 30


def test_subsets_are_fixed_and_may_not_be_larger_than_the_data():
    config = DataConfig(train_examples=100, test_examples=60)
    dataset, again = load_dataset(config), load_dataset(config)
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (100, 60)
    np.testing.assert_array_equal(dataset.train.images, again.train.images)
    assert np.unique(dataset.train.labels).size == 10
    refused(DataConfig(train_examples=5000), "data.train_examples is 5000", "1433")
    refused(DataConfig(test_examples=9), "has no test image", "data.test_examples")


def test_a_source_by_its_name_and_an_unknown_one():
    np.testing.assert_array_equal(load_dataset("digits").test.images, load_dataset(DataConfig()).test.images)
    refused("cifar", "data.source is 'cifar'", *SOURCES)
    refused("npz", "data.path is empty", "data.source npz")


# ------------------------------------------------------------------ image folders


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("ant", "bee", "cow")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((6, 5, 3), 40 * label + i, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
    return DataConfig(
        source="image_folder", path=str(tmp_path / "images"), cache_dir=str(tmp_path / "cache")
    ), tmp_path / "images"


def test_folder(folder):
    dataset = load_dataset(folder[0])
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.train.images.shape == (12, 6, 5, 3)
    np.testing.assert_array_equal(dataset.train.labels, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(dataset.test.images[:, 0, 0, 0], [0, 1, 40, 41, 80, 81])


def test_folder_is_decoded_once_and_again_when_its_content_changes(folder, monkeypatch):
    config, root = folder
    first = load_dataset(config)
    with monkeypatch.context() as patched:
        patched.setattr("ncjax.data.folder.read_folder", lambda *args: pytest.fail("decoded again"))
        np.testing.assert_array_equal(load_dataset(config).train.images, first.train.images)
    Image.fromarray(np.full((6, 5, 3), 99, np.uint8)).save(root / "train" / "ant" / "0.png")
    assert load_dataset(config).train.images[0, 0, 0, 0] == 99


@pytest.mark.parametrize("damage", [b"", b"not a zip", "half"])
def test_damaged_cache_is_made_again(folder, damage, tmp_path):
    config, _ = folder
    first = load_dataset(config)
    (entry,) = (tmp_path / "cache").iterdir()
    content = entry.read_bytes()
    entry.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    np.testing.assert_array_equal(load_dataset(config).train.images, first.train.images)
    assert entry.read_bytes() == content


def test_unwritable_cache_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    refused(
        dataclasses.replace(folder[0], cache_dir=str(tmp_path / "file")), "cannot write the cache", "data.cache_dir"
    )


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_broken_image_is_named(folder, damage):
    config, root = folder
    path = root / "train" / "bee" / "2.png"
    Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes({"text": b"hello", "truncated": content[: len(content) // 2], "empty": b""}[damage])
    refused(config, "bee/2.png", "not an image")


def test_folder_mistakes_are_named(folder, tmp_path):
    config, root = folder
    Image.fromarray(np.zeros((9, 5, 3), np.uint8)).save(root / "test" / "cow" / "1.png")
    refused(config, "cow/1.png is 5 x 9", "ant/0.png is 5 x 6")
    os.rename(root / "test" / "cow", tmp_path / "moved")
    refused(config, "test/cow is missing")
    os.rename(tmp_path / "moved", root / "test" / "dog")
    refused(config, "test/cow is missing")
    os.rename(root / "test", tmp_path / "moved")
    refused(config, "test is missing")
    refused(dataclasses.replace(config, path=str(root / "no")), "is not a folder")
    refused(dataclasses.replace(config, path=""), "data.path is empty")


def test_empty_class_folder_is_named(folder):
    config, root = folder
    for file in (root / "train" / "ant").iterdir():
        file.unlink()
    refused(config, "train/ant holds no images")


# ------------------------------------------------------------------ CIFAR


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote strings, as in the files that are distributed."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        self.write(b"T" + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = save_string


def python2(content):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def cifar_arrays(count, classes):
    labels = RNG.permutation(np.arange(count) % classes).tolist()
    return RNG.integers(0, 256, (count, 3072), dtype=np.uint8), labels


@pytest.fixture
def cifar10(tmp_path):
    expected = []
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels, labels = cifar_arrays(10, 10)
        content = {b"data": pixels, b"labels": labels, b"filenames": [b"a"] * 10, b"batch_label": b"x"}
        write = python2 if name != "data_batch_1" else functools.partial(pickle.dumps, protocol=2)
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(write(content))
        expected.append((pixels, labels))
    return tmp_path, expected


def test_cifar10_pickles(cifar10):
    root, expected = cifar10
    for path in (root, root / "cifar-10-batches-py"):
        dataset = load_dataset(DataConfig(source="cifar10", path=str(path)))
        assert dataset.class_names[3] == "cat"
        np.testing.assert_array_equal(dataset.train.labels, np.concatenate([labels for _, labels in expected[:5]]))
        pixels = expected[5][0].reshape(10, 3, 32, 32)
        np.testing.assert_array_equal(dataset.test.images[2, 5, 7], pixels[2, :, 5, 7])


def test_cifar10_binary_equals_pickles(cifar10, tmp_path):
    root, expected = cifar10
    binary = tmp_path / "binary"
    binary.mkdir()
    for i, (pixels, labels) in enumerate(expected):
        name = f"data_batch_{i + 1}.bin" if i < 5 else "test_batch.bin"
        (binary / name).write_bytes(np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes())
    ours = load_dataset(DataConfig(source="cifar10", path=str(binary)))
    theirs = load_dataset(DataConfig(source="cifar10", path=str(root)))
    np.testing.assert_array_equal(ours.train.images, theirs.train.images)
    np.testing.assert_array_equal(ours.test.labels, theirs.test.labels)
    (binary / "data_batch_3.bin").write_bytes(b"x" * 100)
    refused(DataConfig(source="cifar10", path=str(binary)), "data_batch_3.bin", "100 bytes")


def test_cifar100_reads_fine_labels(tmp_path):
    for name in ("train", "test"):
        pixels, labels = cifar_arrays(100, 100)
        content = {b"data": pixels, b"fine_labels": labels, b"coarse_labels": [0] * 100}
        (tmp_path / name).write_bytes(python2(content))
    dataset = load_dataset(DataConfig(source="cifar100", path=str(tmp_path)))
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert len(dataset.class_names) == 100


def test_pickle_that_names_code_runs_nothing(cifar10, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    root, _ = cifar10
    (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps({b"data": Evil()}, protocol=2))
    refused(DataConfig(source="cifar10", path=str(root)), "data_batch_2", "mkdir")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": np.zeros((4, 3), np.uint8), b"labels": [0] * 4}),
        pickle.dumps({b"data": np.zeros((4, 3072), np.float32), b"labels": [0] * 4}),
        pickle.dumps({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0] * 3}),
        pickle.dumps({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 10]}),
    ],
)
def test_broken_cifar_file_is_named(cifar10, content):
    root, _ = cifar10
    (root / "cifar-10-batches-py" / "data_batch_4").write_bytes(content)
    refused(DataConfig(source="cifar10", path=str(root)), "data_batch_4")


def test_missing_cifar_files_are_named(cifar10, tmp_path):
    root, _ = cifar10
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    refused(DataConfig(source="cifar10", path=str(root)), "test_batch is missing")
    (tmp_path / "empty").mkdir()
    refused(DataConfig(source="cifar10", path=str(tmp_path / "empty")), "no cifar10 files")


# ------------------------------------------------------------------ IDX


def idx(array):
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(params=["plain", "gzip"])
def mnist(tmp_path, request):
    arrays = {
        "train-images-idx3-ubyte": RNG.integers(0, 256, (20, 7, 6), dtype=np.uint8),
        "train-labels-idx1-ubyte": (np.arange(20) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": RNG.integers(0, 256, (10, 7, 6), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(10, dtype=np.uint8),
    }
    for name, array in arrays.items():
        content = idx(array)
        zipped = request.param == "gzip"
        (tmp_path / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return DataConfig(source="idx", path=str(tmp_path)), tmp_path, arrays


def test_idx(mnist):
    config, _, arrays = mnist
    dataset = load_dataset(config)
    np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["t10k-labels-idx1-ubyte"])


def test_broken_idx_files_are_named(mnist):
    config, root, arrays = mnist
    path = next(root.glob("t10k-images*"))
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    refused(config, path.name)
    path.write_bytes(content)
    labels = next(root.glob("t10k-labels*"))
    short = idx(arrays["t10k-labels-idx1-ubyte"][:5])
    labels.write_bytes(gzip.compress(short) if labels.suffix == ".gz" else short)
    refused(config, path.name, "labels are")
    labels.write_bytes(content)
    refused(config, labels.name, "no IDX file")
    labels.unlink()
    refused(config, "t10k-labels-idx1-ubyte[.gz] is missing")


# ------------------------------------------------------------------ npz


@pytest.fixture
def npz(tmp_path):
    arrays = {
        "x_train": RNG.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8),
        "y_train": np.arange(12) % 4,
        "x_test": RNG.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
    }

    def write(**changes):
        content = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
        np.savez(tmp_path / "set.npz", **content)
        return DataConfig(source="npz", path=str(tmp_path / "set.npz"))

    return write


def test_npz(npz):
    dataset = load_dataset(npz(class_names=np.array(["a", "b", "c", "d"])))
    assert dataset.class_names == ("a", "b", "c", "d")
    assert dataset.train.images.shape == (12, 4, 4, 3)
    assert load_dataset(npz()).class_names[0] == "class 0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "no array y_test"),
        ({"x_train": np.zeros((12, 4, 4, 3))}, "float64"),
        ({"x_train": np.zeros((12, 16), np.uint8)}, "(12, 16)"),
        ({"y_train": np.arange(11)}, "labels are int64 (11,)"),
        ({"y_train": np.arange(12) / 2}, "labels are float64"),
        ({"y_train": np.arange(12) - 1}, "run from -1"),
        ({"y_test": np.arange(8)}, "run from 0 to 7, but there are 4 classes"),
        ({"x_test": np.zeros((8, 5, 4, 3), np.uint8)}, "make them the same"),
        ({"y_train": np.array([{}] * 12)}, "without pickle"),
        ({"x_test": np.zeros((0, 4, 4, 3), np.uint8), "y_test": np.zeros(0, int)}, "test split holds no images"),
    ],
)
def test_bad_npz_is_explained(npz, changes, message):
    refused(npz(**changes), "set", message)


def test_npz_that_is_none_is_named(npz, tmp_path):
    config = npz()
    (tmp_path / "set.npz").write_bytes(b"hello")
    refused(config, "set.npz")
    (tmp_path / "set.npz").unlink()
    refused(config, "is not a file")


# ------------------------------------------------------------------ TFDS


def test_tfds_errors_say_what_to_install_or_prepare(tmp_path):
    refused(DataConfig(source="tfds"), "data.tfds_name is empty")
    config = DataConfig(source="tfds", tfds_name="mnist", path=str(tmp_path))
    with pytest.raises(UserError, match=r"pip install 'ncjax\[tfds\]'|ncjax data fetch tfds:mnist"):
        load_dataset(config)
