# SPDX-License-Identifier: Apache-2.0
"""A test split for data sets that have none."""

import numpy as np
from jaxtyping import Bool, Integer

from ncjax.errors import UserError

SEED = 0


def hold_out(labels: Integer[np.ndarray, "n"], fraction: float, names: tuple[str, ...]) -> Bool[np.ndarray, "n"]:
    """Which images become the test split: that fraction of each class, one or more, drawn with `SEED`.

    The rows of class `i` are permuted by `numpy.random.default_rng([SEED, i])`; the first ones are held out.

    Args:
        labels: of all images, in their order.
        fraction: above 0 and below 1, rounded for each class; one image of it is left at least.
        names: of the classes.

    Raises:
        UserError: a class has one image alone.
    """
    held = np.zeros(labels.shape, bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if rows.size < 2:
            raise UserError(f"class {names[label]!r} has one image, but data.test_fraction needs two of each class")
        count = min(max(1, round(fraction * rows.size)), rows.size - 1)
        held[np.random.default_rng([SEED, int(label)]).permutation(rows)[:count]] = True
    return held


def held_out_note(held: Bool[np.ndarray, "n"], fraction: float) -> str:
    """What `hold_out` did, in one line."""
    return (
        f"{int(held.sum())} of {held.size} images are the test split that data.test_fraction {fraction:g} makes, "
        f"class by class with seed {SEED}."
    )
