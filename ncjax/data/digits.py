# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's 1,797 digits: 8x8 pixels, 0..16 scaled to 0..255; every fifth image of a class is a test image."""

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.dataset import Dataset, Split
from ncjax.data.source import Source


def _read(_: DataConfig) -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    held_out = np.zeros(len(labels), bool)
    for label in range(10):
        held_out[np.flatnonzero(labels == label)[::5]] = True
    train, test = (Split(images=images[rows], labels=labels[rows]) for rows in (~held_out, held_out))
    names = tuple(map(str, range(10)))
    return Dataset(name="digits", train=train, test=test, class_names=names, fingerprint="scikit-learn digits")


DIGITS = Source(read=_read, summary="scikit-learn's 1,797 digits: grey images of 8 x 8, 10 classes", needs="")
