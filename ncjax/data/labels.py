# SPDX-License-Identifier: Apache-2.0
"""Fine labels of any whole numbers as classes 0, 1, ...: ids that are too large to count up to are numbered."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

from ncjax.errors import UserError

KEPT = 1000  # labels up to here, and up to ten times the number of classes more, stay as they are


class Classes(NamedTuple):
    """The labels of every split as classes, and the names of the classes; none: not known."""

    labels: Mapping[str, Int32[np.ndarray, "_"]]
    names: tuple[str, ...]


def check_whole(name: str, labels: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    """The labels themselves, where they are whole numbers from 0, of any size and numeric type.

    Raises:
        UserError: one is fractional, not finite or negative, or they are no numbers.
    """
    if labels.dtype.kind not in "iuf" or not (np.isfinite(labels) & (labels == np.floor(labels))).all():
        raise UserError(f"{name} labels are of type {labels.dtype}, but must be whole numbers 0, 1, ...")
    if labels.size and labels.min() < 0:
        raise UserError(f"{name} label {labels.min()} of row {labels.argmin()} is out of range; labels start at 0")
    return labels


def number_classes(labels: Mapping[str, Shaped[np.ndarray, "_"]], names: tuple[str, ...] = ()) -> Classes:
    """The labels of all splits as int32; without class names, sparse ids are numbered in order of size.

    Ids are sparse where the largest is 1,000 + 10 k or more for k different ones; then the names of the classes are
    the ids.

    Example:
        >>> number_classes({"train": np.array([3, 2**32 + 3, 3])})
        Classes(labels={'train': array([0, 1, 0], dtype=int32)}, names=('3', '4294967299'))

    Args:
        labels: of `check_whole`, by split.
        names: of the classes 0, 1, ...; empty: not known.

    Raises:
        UserError: a label has no name.
    """
    found = {split: np.unique(values, return_inverse=True) for split, values in labels.items()}
    ids = sorted({int(value) for values, _ in found.values() for value in values})
    largest = ids[-1] if ids else 0
    if names and largest >= len(names):
        split = next(split for split, (values, _) in found.items() if int(values[-1]) >= len(names))
        high = int(found[split][0][-1])
        raise UserError(f"{split} label {high} is out of range: there are {len(names)} class names, for 0, 1, ...")
    if names or largest < KEPT + 10 * len(ids):
        return Classes({split: values.astype(np.int32) for split, values in labels.items()}, names)
    number = {value: i for i, value in enumerate(ids)}
    numbered = {
        split: np.array([number[int(value)] for value in values], np.int32)[rows.reshape(-1)]
        for split, (values, rows) in found.items()
    }
    return Classes(numbered, tuple(map(str, ids)))
