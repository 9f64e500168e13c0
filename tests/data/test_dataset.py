# SPDX-License-Identifier: Apache-2.0
"""Data sets of arrays in memory."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.data import Dataset
from ncjax.errors import UserError

RNG = np.random.default_rng(0)
ARRAYS = {
    "x_train": RNG.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8),
    "y_train": np.arange(12) % 3,
    "x_test": RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
    "y_test": np.arange(6) % 3,
}


def made(**changes):
    return Dataset.from_arrays(**ARRAYS | changes)


def test_arrays_are_checked_and_images_are_not_copied():
    dataset = made(class_names=["a", "b", "c"], name="mine")
    assert dataset.train.images is ARRAYS["x_train"]
    assert dataset.test.labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.test.labels, ARRAYS["y_test"])
    assert (dataset.name, dataset.class_names) == ("mine", ("a", "b", "c"))
    assert made().class_names == ("class 0", "class 1", "class 2")


def test_grey_images_get_a_channel_and_arrays_of_jax_and_lists_are_taken():
    grey = made(
        x_train=jnp.asarray(ARRAYS["x_train"][..., 0]),
        x_test=ARRAYS["x_test"][..., 0],
        y_train=ARRAYS["y_train"].tolist(),
    )
    assert grey.train.images.shape == (12, 4, 5, 1)
    np.testing.assert_array_equal(grey.train.images[..., 0], ARRAYS["x_train"][..., 0])
    np.testing.assert_array_equal(grey.train.labels, ARRAYS["y_train"])


def test_the_fingerprint_follows_the_content():
    flipped, other = ARRAYS["x_test"].copy(), ARRAYS["y_train"].copy()
    flipped[0, 0, 0, 0] ^= 1
    other[:2] = other[1::-1]
    copies = {name: array.copy() for name, array in ARRAYS.items()}
    assert made(**copies, name="another name").fingerprint == made().fingerprint
    changed = [{"x_test": flipped}, {"y_train": other}, {"class_names": ("a", "b", "c")}]
    assert len({made(**change).fingerprint for change in ({}, *changed)}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((12, 4, 5, 3))}, "mine, train: images are float64 (12, 4, 5, 3), but must be uint8"),
        ({"x_train": np.zeros((12, 60), np.uint8)}, "(12, 60)"),
        ({"y_train": np.arange(11)}, "mine, train: labels are int64 (11,), but must be integers [12]"),
        ({"y_test": np.arange(6) / 2}, "mine, test: labels are float64"),
        ({"y_train": np.arange(12) - 1}, "run from -1"),
        ({"y_train": np.full(12, 100)}, "a label is 100, but 12 training images are fewer classes"),
        ({"y_test": np.arange(6)}, "mine: test labels run from 0 to 5, but there are 3 classes"),
        ({"class_names": ("a", "b")}, "mine, train label 2 is out of range: there are 2 class names"),
        ({"class_names": ("a", "b", "a")}, "two classes are named 'a'"),
        ({"class_names": ("a", "b", "c", "d")}, "class 'd' has no train image"),
        ({"x_test": np.zeros((6, 5, 5, 3), np.uint8)}, "make them the same"),
        ({"y_test": np.zeros(6, int)}, "class 'class 1' has no test image"),
        ({"x_test": np.zeros((0, 4, 5, 3), np.uint8), "y_test": np.zeros(0, int)}, "the test split holds no images"),
        ({"x_test": np.zeros((6, 0, 5, 3), np.uint8)}, "without a pixel"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError) as error:
        made(**changes, name="mine")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
