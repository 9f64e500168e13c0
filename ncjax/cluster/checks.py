# SPDX-License-Identifier: Apache-2.0
"""Checks of what is passed to k-means: each says in one line what is wrong, and what to do."""

import math
from numbers import Integral, Real
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ncjax.distributed.processes import to_host
from ncjax.errors import UserError


def whole(array: Any) -> np.ndarray:
    """An array of NumPy, or of JAX on any devices, as a whole NumPy array."""
    return np.asarray(to_host(array) if isinstance(array, jax.Array) else array)


def check_options(k: Any, init: Any, restarts: Any, max_iterations: Any, tol: Any) -> None:
    """Raises a UserError that names the first option out of its range."""
    for name, value in (("k", k), ("restarts", restarts), ("max_iterations", max_iterations)):
        if not is_whole(value, 1):
            raise UserError(f"k-means: {name} is {value!r}, but must be a whole number from 1")
    if not is_tolerance(tol):
        raise UserError(f"k-means: tol is {tol!r}, but must be a number from 0")
    if isinstance(init, str) and init not in ("k-means++", "random"):
        raise UserError(f"k-means: init is {init!r}, but must be k-means++, random, or initial centroids [r k d]")


def is_whole(value: Any, low: int) -> bool:
    """Whether a value is a whole number of at least `low`, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= low


def is_tolerance(value: Any) -> bool:
    """Whether a value is a finite number of at least 0, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def check_init(initial: Any, shape: tuple[int, ...], k: int) -> None:
    """Raises a UserError where initial centroids do not fit points of this shape."""
    if initial is None:
        return
    *problems, _, d = shape
    if initial.ndim != len(shape) + 1 or initial.shape[:-3] != tuple(problems) or initial.shape[-2:] != (k, d):
        wanted = ", ".join(map(str, (*problems, "r", k, d)))
        raise UserError(f"k-means: initial centroids are {list(initial.shape)}, but must be [{wanted}]")


def check_weights(weights: Any, shape: tuple[int, ...], k: int) -> None:
    """Raises a UserError where weights do not fit, or where some problem has fewer points than clusters."""
    present = shape[-2]
    if weights is not None:
        if weights.shape != shape[:-1]:
            raise UserError(f"k-means: weights are {list(weights.shape)}, but must be {list(shape[:-1])}")
        known = whole(weights)
        if not (np.isfinite(known).all() and (known >= 0).all()):
            raise UserError("k-means: weights must be finite and at least 0")
        present = int((known > 0).sum(axis=-1).min())
    if k > present:
        raise UserError(f"k-means: k is {k}, but must be from 1 to the number of points, {present}")


def check_finite(points: Array | np.ndarray, results: Any) -> None:
    """Raises a UserError that names the rows that are not finite; looks for them only where results are not finite."""
    if np.isfinite(whole(results)).all():
        return
    points = whole(points)
    rows = np.flatnonzero(~np.isfinite(points).all(axis=-1).reshape(-1))
    if not rows.size:
        raise UserError("k-means: squared distances exceed the range of float32; divide the points by a constant")
    named = ", ".join(map(str, rows[:5])) + ("..." if rows.size > 5 else "")
    raise UserError(f"k-means: {rows.size} points are not finite (rows {named}); remove them")
