# SPDX-License-Identifier: Apache-2.0
"""Arrays on disk that are written and read a part at a time, by TensorStore; those of Orbax are read too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Shaped

from ncjax.buckets import BucketPath
from ncjax.storage.atomic import write_json

Place: TypeAlias = tuple[str, ...]  # of an array in a tree of names, such as ("train", "features")
INDEX = "arrays.json"  # the places of the arrays of a folder; each lies in a folder of its number
CHUNK_BYTES = 2**24  # the least that is read of an array, where only some rows are
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


def create_arrays(folder: Path, arrays: Mapping[Place, jax.ShapeDtypeStruct]) -> None:
    """Make a folder with arrays of 0, which any process may then open and write.

    Args:
        folder: that does not exist yet.
        arrays: shapes and types by place; of three axes, such as `[s n d]`, the first are in different files.
    """
    import tensorstore

    folder.mkdir(parents=True)
    codec = tensorstore.CodecSpec({"driver": "zarr", "compressor": {"id": "zstd", "level": 1}})
    for number, about in enumerate(arrays.values()):
        chunks = tensorstore.ChunkLayout(chunk_shape=_chunk_shape(about))
        spec, dtype = _spec(folder, number), tensorstore.dtype(about.dtype)
        tensorstore.open(spec, create=True, shape=about.shape, dtype=dtype, chunk_layout=chunks, codec=codec).result()
    write_json(folder / INDEX, [list(place) for place in arrays])


def open_arrays(folder: Path) -> dict[Place, Any]:
    """The arrays of TensorStore in a folder that `create_arrays` made, by place.

    Raises:
        ValueError: there are none, or the index is damaged.
    """
    import tensorstore

    try:
        places = [tuple(place) for place in json.loads((folder / INDEX).read_text(encoding="utf-8"))]
    except (OSError, TypeError) as error:
        raise ValueError(f"{INDEX} cannot be read: {error}") from error
    opened = [tensorstore.open(_spec(folder, i), context=_context(), open=True) for i in range(len(places))]
    return {place: array.result() for place, array in zip(places, opened, strict=True)}


def _spec(folder: Path, number: int) -> dict[str, Any]:
    return {"driver": "zarr", "kvstore": _store_of(folder / str(number)), "recheck_cached_data": "open"}


def _store_of(folder: Path) -> Any:
    """What TensorStore calls a folder."""
    return f"{folder}/" if isinstance(folder, BucketPath) else {"driver": "file", "path": f"{folder}/"}


def _chunk_shape(about: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    if len(about.shape) < 3:
        return tuple(max(1, length) for length in about.shape)
    width = max(1, about.shape[-1])
    rows = max(1, CHUNK_BYTES // (width * np.dtype(about.dtype).itemsize))
    return (1, min(rows, max(1, about.shape[1])), width)


def open_stored(folder: Path, name: str) -> Any:
    """The array of TensorStore with a name such as `train.features` in a folder that Orbax wrote.

    Raises:
        ValueError: there is none.
    """
    import tensorstore

    files = {"driver": "ocdbt", "base": _store_of(folder), "path": f"{name}/"}
    return tensorstore.open(
        {"driver": "zarr", "kvstore": files}, context=_context(), recheck_cached_data="open"
    ).result()


@cache
def _context() -> Any:
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
