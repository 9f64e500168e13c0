# SPDX-License-Identifier: Apache-2.0
"""Arrays in npz files: what they mean, and files that promise more than they should."""

import io
import zipfile

import numpy as np
import pytest

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
IMAGES[0, 0, 0] = (0, 255, 1)
LABELS = np.arange(12) % 3
NAMES = np.array(["cow", "ant", "bee"])


@pytest.fixture
def load(tmp_path):
    def read(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:6], y_test=LABELS[:6], more=None, **options):
        arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, **(more or {})}
        np.savez_compressed(tmp_path / "set.npz", **{name: one for name, one in arrays.items() if one is not None})
        return load_dataset(DataConfig(source="npz", path=str(tmp_path / "set.npz"), **options))

    return read


def refused(message, read):
    with pytest.raises(UserError, match=message) as error:
        read()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("images", [
    IMAGES, IMAGES.astype(np.int64), IMAGES.astype(np.uint16), IMAGES.astype(np.float32), IMAGES.astype(np.float64),
    IMAGES / 255, (IMAGES / 255).astype(np.float32), (IMAGES / 255).astype(np.float16), np.asfortranarray(IMAGES),
    IMAGES.transpose(0, 3, 1, 2), (IMAGES / 255).transpose(0, 3, 1, 2), IMAGES.astype(">i4"),
], ids=lambda images: f"{images.dtype} {images.shape}")  # fmt: skip
def test_images_that_can_be_meant_are_read_right(load, images):
    dataset = load(x_train=images, x_test=images[:6])
    np.testing.assert_array_equal(dataset.train.images, IMAGES)
    np.testing.assert_array_equal(dataset.test.images, IMAGES[:6])
    assert bool(dataset.notes) == (images.shape[1] == 3)


@pytest.mark.parametrize(("shape", "read"), [
    ((12, 1, 28, 28), (28, 28, 1)), ((12, 3, 32, 32), (32, 32, 3)), ((12, 4, 9, 5), (9, 5, 4)),
    ((12, 3, 32, 3), (3, 32, 3)),
    ((12, 28, 28), (28, 28, 1)), ((12, 3, 4, 4), (3, 4, 4)), ((12, 3, 3, 3), (3, 3, 3)),
    ((12, 16, 16, 10), (16, 16, 10)),
    ((12, 1, 4, 1), (1, 4, 1)), ((12, 2, 8, 8), (2, 8, 8)),
])  # fmt: skip
def test_channels_first_is_told_by_the_shape_alone(load, shape, read):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    dataset = load(x_train=images, x_test=images[:6])
    assert dataset.train.images.shape[1:] == read
    wanted = images if len(shape) == 3 else images.transpose(0, 2, 3, 1) if dataset.notes else images
    np.testing.assert_array_equal(dataset.train.images, wanted.reshape(dataset.train.images.shape))


@pytest.mark.parametrize(("images", "message"), [
    (IMAGES / 128 - 1, "from -1 to 0.99"), (IMAGES / 2, "fractions from 0 to 1"), (IMAGES * 257.0, "to 65535"),
    (IMAGES.astype(np.uint16) * 257, "uint16 .* to 65535"), (IMAGES.astype(np.int16) - 1, "from -1 to 254"),
    (np.where(IMAGES > 4, IMAGES / 255, np.nan), "nan"), (np.where(IMAGES > 4, 1, np.inf), "inf"),
    (IMAGES > 4, "bool"), (IMAGES.astype(np.complex64), "complex64"), (IMAGES.astype(str), "<U3"),
    (IMAGES[0, 0], r"\(6, 3\)"),
    (IMAGES[:, None], r"\(12, 1, 8, 6, 3\)"),
])  # fmt: skip
def test_images_that_cannot_be_meant_are_refused(load, images, message):
    refused(message, lambda: load(x_train=images, x_test=images[:6]))


def test_splits_of_two_types_are_refused(load):
    refused("images are float64 .*test images are uint8; save both as one type", lambda: load(x_train=IMAGES / 255))
    refused(
        "images are float32 .* to 255; save",
        lambda: load(x_train=np.float32(IMAGES), x_test=np.float32(IMAGES[:6] / 2)),
    )


@pytest.mark.parametrize("labels", [NAMES[LABELS], NAMES.astype("S")[LABELS], NAMES[LABELS][:, None]])
def test_labels_as_names_are_the_classes(load, labels):
    dataset = load(y_train=labels, y_test=labels[:6])
    assert dataset.class_names == ("ant", "bee", "cow")
    assert [dataset.class_names[i] for i in dataset.train.labels] == NAMES[LABELS].tolist()
    given = load(y_train=labels, y_test=labels[:6], more={"class_names": NAMES})
    assert given.class_names == tuple(NAMES)
    np.testing.assert_array_equal(given.test.labels, LABELS[:6])


def test_labels_in_a_column_are_labels(load):
    np.testing.assert_array_equal(load(y_train=LABELS[:, None]).train.labels, LABELS)


@pytest.mark.parametrize(("changes", "message"), [
    ({"y_train": NAMES[LABELS]}, "labels are names, but must be integers as in the other split"),
    ({"y_train": NAMES[LABELS], "y_test": np.array(["dog"] * 6)}, "class 'dog' has no train image"),
    ({"y_train": NAMES[LABELS], "y_test": NAMES[LABELS[:6]],
      "more": {"class_names": NAMES[:2]}}, "'bee', which is none"),
    ({"y_train": NAMES[LABELS].astype(object)}, "y_train holds Python objects, .*without pickle"),
    ({"y_train": np.eye(3)[LABELS]}, "labels are float64"),
    ({"y_train": np.eye(3, dtype=int)[LABELS]}, r"labels are int64 \(12, 3\)"),
    ({"y_train": LABELS > 0}, "labels are bool"), ({"y_train": np.int64(3)}, r"labels are int64 \(\)"),
    ({"x_train": IMAGES.transpose(1, 2, 3, 0), "x_test": IMAGES[:6].transpose(1, 2, 3, 0)}, "labels are int64"),
    ({"x_test": None}, "no array x_test; .*data.test_fraction makes a test split"),
    ({"more": {"super_classes": np.array(["a", "b"])}}, "super_classes names 2 for 3 classes"),
])  # fmt: skip
def test_labels_that_cannot_be_meant_are_refused(load, changes, message):
    refused(message, lambda: load(**changes))


def test_super_classes_travel_in_the_file(load):
    assert load(more={"super_classes": np.array(["x", "y", "x"])}).super_classes == ("x", "y", "x")


def test_other_arrays_of_the_file_are_not_read(load):
    assert load(more={"notes": np.array([{}], dtype=object), "large": np.zeros(10)}).train.images.shape == IMAGES.shape


@pytest.mark.parametrize("labels", [LABELS, NAMES[LABELS]])
def test_a_share_of_the_training_arrays_is_the_test_split(load, labels):
    dataset = load(y_train=labels, x_test=None, y_test=None, test_fraction=0.25)
    assert np.bincount(dataset.test.labels).tolist() == [1, 1, 1]
    both = np.concatenate([dataset.train.images, dataset.test.images])
    assert sorted(map(bytes, both)) == sorted(map(bytes, IMAGES))
    assert dataset.notes == (
        "3 of 12 images are the test split that data.test_fraction 0.25 makes, class by class with seed 0.",
    )
    refused("has a test split, so data.test_fraction must be 0", lambda: load(test_fraction=0.25))


def test_resized(load):
    small, large = load(image_size=4), load(image_size=20)
    assert (small.train.images.shape, large.test.images.shape) == ((12, 4, 4, 3), (6, 20, 20, 3))
    assert len({small.fingerprint, large.fingerprint, load().fingerprint}) == 3


# ------------------------------------------------------------------ files that lie


def header(shape, dtype="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


LIES = {
    "more than the stream can hold": (header((12, 10**6, 10**6, 3)) + bytes(100), "promises 36000000000000 bytes, but"),
    "more than the memory": (header((2**30, 2**10, 2**5)) + bytes(2**22), "promises|GiB, but this machine"),
    "a negative shape": (header((-12, 8, 6, 3)), "not an npz file"),
    "a header of 64 MiB": (b"\x93NUMPY\x02\x00" + (2**26).to_bytes(4, "little") + b" " * 2**26, "not an npz file"),
    "a header of code": (b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').abort()        ", "not an npz file"),
    "no header": (b"", "not an npz file"),
    "half the data": (header((12, 8, 6, 3)) + bytes(100), "not an npz file"),
    "objects": (header((12,), "|O") + bytes(100), "Python objects"),
    "a subarray": (header((12,), "(100000,100000,1000)u1") + bytes(100), "not an npz file|promises"),
    "a wide text": (header((12,), "<U536870911") + bytes(100), "promises"),
}


@pytest.mark.parametrize("name", LIES)
def test_arrays_that_lie_are_refused_from_the_header(name, tmp_path):
    content, message = LIES[name]
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", content)
        for other in ("y_train", "x_test", "y_test"):
            file = io.BytesIO()
            np.save(file, LABELS if other[0] == "y" else IMAGES)
            archive.writestr(f"{other}.npy", file.getvalue())
    refused(message, lambda: load_dataset(DataConfig(source="npz", path=str(tmp_path / "set.npz"))))


def test_an_array_that_inflates_past_its_promise_is_read_to_its_promise(tmp_path, load):
    load()
    file = io.BytesIO()
    np.save(file, IMAGES)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with zipfile.ZipFile(tmp_path / "set.npz") as whole:
            for other in ("y_train.npy", "x_test.npy", "y_test.npy"):
                archive.writestr(other, whole.read(other))
        with archive.open("x_train.npy", "w", force_zip64=True) as member:
            member.write(file.getvalue())
            for _ in range(64):
                member.write(bytes(2**20))
    dataset = load_dataset(DataConfig(source="npz", path=str(tmp_path / "bomb.npz")))
    np.testing.assert_array_equal(dataset.train.images, IMAGES)
