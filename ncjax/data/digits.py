# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's 1,797 digits as they are, and a harder data set that is made from them."""

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.dataset import Dataset, Split
from ncjax.data.source import Source

SIDE = 12  # of a shifted digit [pixels]
COPIES = 4  # of each digit, every one at a place of its own


def digits() -> Dataset:
    """The 1,797 digits: 8x8 pixels, 0..16 scaled to 0..255; every fifth picture of a class is a test picture."""
    from sklearn.datasets import load_digits

    content = load_digits()
    images = np.round(content.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = content.target.astype(np.int32)
    held_out = np.zeros(len(labels), bool)
    for label in range(10):
        held_out[np.flatnonzero(labels == label)[::5]] = True
    train, test = (Split(images=images[rows], labels=labels[rows]) for rows in (~held_out, held_out))
    names = tuple(map(str, range(10)))
    return Dataset(name="digits", train=train, test=test, class_names=names, fingerprint="scikit-learn digits")


def shifted_digits(seed: int = 0) -> Dataset:
    """The digits at random places of larger pictures: their pixels say little of their class.

    Each 8x8 digit becomes four pictures of 12x12 pixels: 5,732 for training and 1,456 of other digits for testing.
    Inside a super-class of two digits k-means on the pixels finds little more than chance, 50 %.

    Args:
        seed: of the places. The source `shifted_digits` has seed 0.

    Example:
        >>> dataset = shifted_digits()
        >>> dataset.train.images.shape, dataset.test.images.shape
        ((5732, 12, 12, 1), (1456, 12, 12, 1))
    """
    centred, rng = digits(), np.random.default_rng(seed)
    train, test = (_shifted(split, rng) for split in (centred.train, centred.test))
    fingerprint = f"scikit-learn digits, shifted, seed {seed}"
    return Dataset(
        name="shifted_digits", train=train, test=test, class_names=centred.class_names, fingerprint=fingerprint
    )


def _shifted(split: Split, rng: np.random.Generator) -> Split:
    """Each picture `COPIES` times, at places drawn evenly."""
    images, labels = (np.repeat(np.asarray(array), COPIES, axis=0) for array in (split.images, split.labels))
    count, size = images.shape[:2]
    places = rng.integers(0, SIDE - size + 1, (count, 2))
    canvas = np.zeros((count, SIDE, SIDE, 1), np.uint8)
    for picture, (row, column), digit in zip(canvas, places, images, strict=True):
        picture[row : row + size, column : column + size] = digit
    return Split(images=canvas, labels=labels)


def _read(_: DataConfig) -> Dataset:
    return digits()


def _read_shifted(_: DataConfig) -> Dataset:
    return shifted_digits()


DIGITS = Source(read=_read, summary="scikit-learn's 1,797 digits: grey images of 8 x 8, 10 classes", needs="")
SHIFTED_DIGITS = Source(
    read=_read_shifted,
    summary="the digits at random places of pictures of 12 x 12, four of each: pixels say little of their class",
    needs="",
)
