# SPDX-License-Identifier: Apache-2.0
"""Checks of user-supplied arrays: NumPy, PyTorch, JAX, or on disk."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from ncjax.data.labels import check_whole
from ncjax.errors import UserError, first_line
from ncjax.storage.arrays import Rows, is_tensor, tensor_to_numpy
from ncjax.storage.npy_rows import unmapped

BLOCK_BYTES = 2**22  # read at a time


def to_numpy(name: str, array: Any) -> np.ndarray:
    """A NumPy array of a PyTorch tensor or of anything like an array; bfloat16 stays, or becomes float32.

    Raises:
        UserError: a tensor holds no plain numbers; `name` begins the message.
    """
    if is_tensor(array):
        return tensor_to_numpy(name, array)
    array = array if isinstance(array, np.ndarray) else np.asarray(array)
    return array.view(jnp.bfloat16) if array.dtype == np.dtype("V2") else array  # as np.save writes bfloat16


def as_members(name: str, features: Any) -> np.ndarray | Sequence[Rows]:
    """The features `[n d]` of each member, of an array `[n d]` or `[s n d]`.

    Whole memory maps stay on disk, and are read by explicit reads; parts of one stay what they are.

    Raises:
        UserError: the shape or type does not fit.
    """
    rows = to_numpy(f"{name} features", features)
    if rows.ndim not in (2, 3) or 0 in rows.shape:
        raise UserError(
            f"{name} features are {list(rows.shape)}, but must be [examples, features], or [members, examples, "
            "features], none of them 0"
        )
    if rows.dtype != np.dtype(jnp.bfloat16) and rows.dtype.kind not in "fiu":
        raise UserError(f"{name} features are of type {rows.dtype}, but must be numbers, such as float32")
    on_disk = unmapped(features) if isinstance(features, np.ndarray) else None
    if on_disk is not None:
        return tuple(one if one.dtype == rows.dtype else one.view(rows.dtype) for one in on_disk)
    return rows if rows.ndim == 3 else (rows,)


def as_labels(name: str, labels: Any, count: int) -> Shaped[np.ndarray, "n"]:
    """Fine labels of `count` examples, whole numbers of any size; `number_classes` makes classes of them.

    Raises:
        UserError: there are none, or their shape, type or range does not fit.
    """
    if labels is None:
        raise UserError(f"{name} features have no labels; give the fine label of each example")
    try:
        found = to_numpy(f"{name} labels", labels)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{name} labels are no array ({first_line(error)}); give one whole number a row") from error
    if found.ndim != 1:
        hint = "; of one-hot rows give argmax(axis=1)" if found.ndim == 2 and found.shape[1] > 1 else ""
        raise UserError(f"{name} labels are {list(found.shape)}, but must be [examples]: one whole number each{hint}")
    if len(found) != count:
        raise UserError(f"{name} has {count} rows of features and {len(found)} labels; give one label a row")
    return check_whole(name, found)
