# SPDX-License-Identifier: Apache-2.0
"""Rows of npy files by explicit reads: unlike pages of a memory map, what was read does not stay in the process."""

import mmap
import os
import weakref
from collections.abc import Iterator
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

GAP_BYTES = 2**12  # between two wanted rows: less is read along with them
READ_BYTES = 2**24  # at once
SPAN_BYTES = 2**24  # of neighbouring rows that are read at once for some of them


class NpyRows:
    """A part `[n d]` of a file that holds numbers alone, as `numpy.memmap` has it, in C or Fortran order.

    Indexed by a slice, or by an array of row numbers in any order. Several threads may read.

    Attributes:
        shape: `(n, d)`.
        dtype: of the numbers; bytes that `numpy.save` writes for bfloat16 are given another one by `view`.
        ndim: 2.
    """

    ndim = 2

    def __init__(self, path: str, offset: int, shape: tuple[int, int], dtype: np.dtype[Any], fortran: bool) -> None:
        self.shape, self.dtype, self._fortran = shape, dtype, fortran
        self._path, self._offset = path, offset
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._lock, self._read = Lock(), 0

    @property
    def passes(self) -> float:
        """How often the whole has been read so far, by bytes."""
        return self._read / max(1, self.shape[0] * self.shape[1] * self.dtype.itemsize)

    def view(self, dtype: Any) -> "NpyRows":
        """The same bytes as numbers of another type of the same size."""
        return NpyRows(self._path, self._offset, self.shape, np.dtype(dtype), self._fortran)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Shaped[np.ndarray, "m d"]:
        if isinstance(rows, slice):
            first, stop, step = rows.indices(self.shape[0])
            if step == 1:
                return self._span(first, max(first, stop))
            return self._gather(np.arange(first, stop, step))
        wanted = np.asarray(rows)
        wanted = np.flatnonzero(wanted) if wanted.dtype == bool else wanted.astype(np.int64)
        if wanted.size and not -self.shape[0] <= wanted.min() <= wanted.max() < self.shape[0]:
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {self.shape[0]}")
        return self._gather(np.where(wanted < 0, wanted + self.shape[0], wanted))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _gather(self, wanted: Int[np.ndarray, "m"]) -> Shaped[np.ndarray, "m d"]:
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        order = np.argsort(wanted, kind="stable")
        for part in self._spans(wanted[order]):
            numbers = wanted[order[part]]
            found[order[part]] = self._span(int(numbers[0]), int(numbers[-1]) + 1)[numbers - numbers[0]]
        return found

    def _spans(self, ascending: Int[np.ndarray, "m"]) -> Iterator[slice]:
        """Parts of ascending row numbers that are read at once."""
        width = self.shape[1] * self.dtype.itemsize
        begin = 0
        for at in range(1, len(ascending) + 1):
            if at < len(ascending):
                gap, length = ascending[at] - ascending[at - 1] - 1, ascending[at] - ascending[begin] + 1
                if gap * width <= GAP_BYTES and length * width <= SPAN_BYTES:
                    continue
            if at > begin:
                yield slice(begin, at)
            begin = at

    def _span(self, first: int, stop: int) -> Shaped[np.ndarray, "m d"]:
        (n, d), size = self.shape, self.dtype.itemsize
        if not self._fortran:
            found = np.empty((stop - first, d), self.dtype)
            self._fill(found, self._offset + first * d * size)
            return found
        columns = np.empty((d, stop - first), self.dtype)
        for j in range(d):
            self._fill(columns[j], self._offset + (j * n + first) * size)
        return columns.T

    def _fill(self, target: np.ndarray, offset: int) -> None:
        buffer = target.reshape(-1).view(np.uint8).data
        while len(buffer):
            part = os.pread(self._file, min(len(buffer), READ_BYTES), offset)
            if not part:
                raise OSError(f"{self._path} ends before its last row; was it shortened while it was read?")
            buffer[: len(part)] = part
            buffer, offset = buffer[len(part) :], offset + len(part)
            with self._lock:
                self._read += len(part)


def unmapped(array: np.ndarray) -> tuple[NpyRows, ...] | None:
    """The members `[n d]` of a memory map `[n d]` or `[s n d]`, read by explicit reads.

    None where that is not possible: the array is part of a map, has changes of its own, or its file is gone.
    """
    if not (isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename):
        return None
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    if array.mode == "c" or array.ndim not in (2, 3) or (array.ndim == 3 and fortran) or 0 in array.shape:
        return None
    whole = array if array.ndim == 3 else array[None]
    members, n, d = whole.shape
    starts = [array.offset + i * n * d * array.dtype.itemsize for i in range(members)]
    try:
        return tuple(NpyRows(str(array.filename), start, (n, d), array.dtype, fortran) for start in starts)
    except OSError:
        return None
