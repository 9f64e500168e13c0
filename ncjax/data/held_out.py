# SPDX-License-Identifier: Apache-2.0
"""Images that are held out: a test split for data sets that have none, and a validation split."""

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Bool, Integer

from ncjax.data.dataset import Dataset, Split
from ncjax.errors import UserError

SEED = 0
OF_TEST, OF_VALIDATION = "data.test_fraction", "data.validation_fraction"


def hold_out(
    labels: Integer[np.ndarray, "n"], fraction: float, names: tuple[str, ...], field: str = OF_TEST
) -> Bool[np.ndarray, "n"]:
    """Which images are held out: that fraction of each class, one or more, drawn with `SEED`.

    The rows of class `i` are permuted by `numpy.random.default_rng([SEED, i])`; the first ones are held out.

    Args:
        labels: of all images, in their order.
        fraction: above 0 and below 1, rounded for each class; one image of it is left at least.
        names: of the classes.
        field: of the config, for the message.

    Raises:
        UserError: a class has one image alone.
    """
    held = np.zeros(labels.shape, bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if rows.size < 2:
            raise UserError(f"class {names[label]!r} has one image, but {field} needs two of each class")
        count = min(max(1, round(fraction * rows.size)), rows.size - 1)
        held[np.random.default_rng([SEED, int(label)]).permutation(rows)[:count]] = True
    return held


def held_out_note(held: Bool[np.ndarray, "n"], fraction: float) -> str:
    """What `hold_out` did, in one line."""
    return (
        f"{int(held.sum())} of {held.size} images are the test split that data.test_fraction {fraction:g} makes, "
        f"class by class with seed {SEED}."
    )


def split_off_validation(dataset: Dataset, fraction: float) -> Dataset:
    """A data set in memory with the validation images in the place of its test split, and without them in training.

    Raises:
        UserError: as `hold_out`.
    """
    held = hold_out(dataset.train.labels, fraction, dataset.class_names, OF_VALIDATION)
    train, test = (
        Split(images=dataset.train.images[rows], labels=dataset.train.labels[rows]) for rows in (~held, held)
    )
    return dataclasses.replace(dataset, train=train, test=test)


def name_validation(dataset: Dataset, fraction: float) -> Dataset:
    """A data set that is tested on its validation images, with a name, a fingerprint and a note that say so."""
    count, left = len(dataset.test.labels), len(dataset.train.labels)
    note = (
        f"{count} of {count + left} training images are the validation split that data.validation_fraction "
        f"{fraction:g} makes, class by class with seed {SEED}: what is called test here is of them, and the test split "
        "is not used."
    )
    key = hashlib.sha256(f"{dataset.fingerprint} validation {fraction:g}".encode()).hexdigest()
    name = f"{dataset.name}, validation split"
    return dataclasses.replace(dataset, name=name, fingerprint=key, notes=(*dataset.notes, note))
