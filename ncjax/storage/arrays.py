# SPDX-License-Identifier: Apache-2.0
"""Arrays that may lie on disk."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64


@runtime_checkable
class Rows(Protocol):
    """An array `[n d]` that is read where it is indexed: of NumPy, numpy.memmap, TensorStore, h5py and such."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any) -> Any: ...


class Frame(NamedTuple):
    """Units in which float32 is long enough for some features: `(features - origin) / scale`.

    Attributes:
        origin: a point near the data where they are far from 0, by feature; 0 elsewhere.
        scale: a power of two near their deviation.
    """

    origin: Float64[np.ndarray, "d"]
    scale: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether features in these units are the features as they are."""
        return self.scale == 1 and not self.origin.any()


@dataclass(frozen=True)
class FramedRows:
    """Rows in the units of a frame, float32; they are subtracted and divided in float64 where they are read."""

    rows: Rows
    frame: Frame

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, rows: Any) -> Float32[np.ndarray, "..."]:
        part = np.asarray(self.rows[rows])
        if self.frame.is_identity:
            return part.astype(np.float32, copy=False)
        return ((part.astype(np.float64) - self.frame.origin) / self.frame.scale).astype(np.float32)


def frame_of(rows: Rows) -> Frame:
    """The units of some rows: their frame, or what they are."""
    return rows.frame if isinstance(rows, FramedRows) else Frame(np.zeros(rows.shape[1]))
