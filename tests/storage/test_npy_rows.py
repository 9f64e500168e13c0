# SPDX-License-Identifier: Apache-2.0
"""Rows of files by explicit reads: every order, type and index gives what NumPy gives; what is read is counted."""

import gc
import os

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.storage import npy_rows
from ncjax.storage.npy_rows import NpyRows, unmapped

N, D = 61, 7


def saved(tmp_path, array) -> NpyRows:
    np.save(tmp_path / "x.npy", array)
    (rows,) = unmapped(np.load(tmp_path / "x.npy", mmap_mode="r"))
    return rows


def some(dtype=np.float32) -> np.ndarray:
    return (100 * np.random.default_rng(0).normal(size=(N, D))).astype(dtype)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "int16"])
@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(3, 20),
        slice(50, 90),
        slice(5, 5),
        slice(40, 2, -3),
        [0, 60, 7, 7, -1],
        np.arange(N) % 3 == 0,
        np.zeros(0, int),
    ],
    ids=str,
)
def test_what_is_read_is_what_numpy_gives(tmp_path, order, dtype, index, monkeypatch):
    monkeypatch.setattr(npy_rows, "GAP_BYTES", 3 * D)
    array = np.asarray(some(dtype), order=order)
    rows = saved(tmp_path, array)
    assert rows.shape == array.shape
    assert len(rows) == N
    found = rows[index]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array[index])


def test_bfloat16_is_viewed(tmp_path):
    array = some().astype(jnp.bfloat16)
    rows = saved(tmp_path, array).view(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(rows, np.float32), array.astype(np.float32))


def test_members_of_a_map_of_three_axes(tmp_path):
    array = np.stack([some(), some() + 1])
    np.save(tmp_path / "x.npy", array)
    members = unmapped(np.load(tmp_path / "x.npy", mmap_mode="r"))
    for member, wanted in zip(members, array, strict=True):
        np.testing.assert_array_equal(member[10:20], wanted[10:20])


def test_passes_count_the_bytes_that_are_read(tmp_path):
    rows = saved(tmp_path, some())
    assert rows.passes == 0
    rows[:], rows[0:30], rows[30:]
    assert rows.passes == pytest.approx(2)
    rows[[0, 10]]  # so near that the rows between them are read too
    assert rows.passes == pytest.approx(2 + 11 / N)


def test_what_is_no_whole_map_is_left(tmp_path):
    np.save(tmp_path / "x.npy", some())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert unmapped(some()) is None
    assert unmapped(mapped[1:]) is None
    assert unmapped(mapped[:, ::2]) is None
    assert unmapped(np.load(tmp_path / "x.npy", mmap_mode="c")) is None
    (tmp_path / "x.npy").unlink()
    assert unmapped(mapped) is None


def test_rows_outlive_the_name_of_the_file_and_close_it(tmp_path):
    rows = saved(tmp_path, some())
    (tmp_path / "x.npy").unlink()
    np.testing.assert_array_equal(rows[:], some())
    before = len(os.listdir("/proc/self/fd"))
    del rows
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_rows_that_are_not_there_are_refused(tmp_path):
    rows = saved(tmp_path, some())
    with pytest.raises(IndexError, match="rows 61 to 61 of 61"):
        rows[[N]]
    os.truncate(tmp_path / "x.npy", 200)
    with pytest.raises(OSError, match="ends before its last row"):
        rows[:]
