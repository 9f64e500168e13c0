# SPDX-License-Identifier: Apache-2.0
"""Arrays that Orbax wrote, read from disk where they are indexed."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

CACHE_BYTES = 2**28  # of pieces of arrays that are kept in memory, for rows of one piece that are read one by one


@dataclass(frozen=True)
class StoredRows:
    """An array `[n d]` of TensorStore as NumPy has it: indexed by a slice or by row numbers, read at once."""

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype.numpy_dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Shaped[np.ndarray, "..."]:
        if isinstance(rows, slice):  # TensorStore refuses one that goes beyond the end
            first, stop, step = rows.indices(len(self))
            rows = slice(first, max(first, stop)) if step == 1 else np.arange(first, stop, step)
        elif (numbers := np.asarray(rows)).dtype != bool:
            rows = np.where(numbers < 0, numbers + len(self), numbers)
        return np.asarray(self.array[rows].read().result())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def open_stored(folder: Path, name: str) -> Any:
    """The array of TensorStore with a name such as `train.features` in a folder that Orbax wrote.

    Raises:
        ValueError: there is none.
    """
    import tensorstore

    files = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}, "path": f"{name}/"}
    return tensorstore.open(
        {"driver": "zarr", "kvstore": files}, context=_context(), recheck_cached_data="open"
    ).result()


@cache
def _context() -> Any:
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
