# SPDX-License-Identifier: Apache-2.0
"""Arrays that may lie on disk."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Rows(Protocol):
    """An array `[n d]` that is read where it is indexed: of NumPy, numpy.memmap, TensorStore, h5py and such."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any) -> Any: ...
