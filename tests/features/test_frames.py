# SPDX-License-Identifier: Apache-2.0
"""The frame of features: float32 is long enough in it, and float32 features that need none keep their bits."""

import numpy as np
import pytest

from ncjax.features.frames import find_frame, framed, survey
from ncjax.storage.arrays import Frame, FramedRows, frame_of

X = np.random.default_rng(0).normal(size=(300, 7))
SENTINEL = np.vstack([X, np.full((1, 7), 1e9)])


@pytest.mark.parametrize(
    "x",
    [X + 1e8, X - 1e12, 1e-20 * X, 1e-30 * X + 1e-22, 1e20 * X, 1e200 * X, SENTINEL + 1e6, (X > 1.5) * X + 1e7,
     X * np.geomspace(1e-6, 1e3, 7), (1e6 * X).astype(np.int64) + 10**12, np.zeros((5, 2)) + 5.1,
     np.arange(256, dtype=np.uint8).reshape(32, 8), X.astype(np.float16)],
)  # fmt: skip
def test_rows_come_back_from_their_frame(x):
    rows = framed(x)
    found = rows[:]
    assert found.dtype == np.float32
    assert np.isfinite(found.astype(np.float64) ** 2).all()
    back = rows.frame.origin + rows.frame.scale * found.astype(np.float64)
    middle = np.median(x, axis=0)
    scale = np.abs(x - middle) + np.median(np.abs(x - middle), axis=0) + np.where(rows.frame.origin == 0, np.abs(x), 0)
    assert (np.abs(back - x) <= 2.0**-20 * scale + 4 * np.spacing(np.abs(x, dtype=np.float64))).all()


@pytest.mark.parametrize("unit", [1.0, 2.0**-40, 2.0**50, 3.0, 1e-3])
def test_float32_features_keep_their_bits(unit):
    x = (unit * X).astype(np.float32)
    rows = framed(x)
    assert not rows.frame.origin.any()
    assert np.log2(rows.frame.scale) == round(np.log2(rows.frame.scale))
    np.testing.assert_array_equal(rows[:] * np.float32(rows.frame.scale), x)


def test_features_that_need_no_frame_are_not_copied():
    x = X.astype(np.float32)
    assert framed(x).frame.is_identity
    assert np.shares_memory(framed(x)[10:20], x)
    assert frame_of(x).is_identity


def test_rows_that_are_not_finite_decide_nothing():
    x = X.copy()
    x[5], x[7, 2] = np.nan, np.inf
    found = survey(x)
    assert np.flatnonzero(~found.finite).tolist() == [5, 7]
    np.testing.assert_array_equal(found.most, np.delete(x, [5, 7], 0).max(axis=0))
    assert find_frame(x, found).is_identity
    assert find_frame(x[5:6], survey(x[5:6])).is_identity


def test_rows_are_read_where_they_are_indexed():
    rows = FramedRows(X, Frame(np.full(7, 2.0), 4.0))
    assert rows.shape == X.shape
    np.testing.assert_allclose(rows[[3, 1]], (X[[3, 1]] - 2) / 4, rtol=1e-6)
