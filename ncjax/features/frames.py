# SPDX-License-Identifier: Apache-2.0
"""The units in which features are measured: float32 is long enough in them, whatever the offset and the scale."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from ncjax.distributed.processes import gather_each, gather_shares, own_share
from ncjax.features.arrays import BLOCK_BYTES
from ncjax.storage.arrays import Frame, FramedRows, Rows

FAR = 8.0  # deviations of a feature: from there on its offset is subtracted before it is rounded to float32
NEAR_1 = 2.0**6  # deviations from its inverse to it need no scale
SAMPLE_FLOATS = 2**20  # of the rows, drawn at random, whose median and deviation decide
WIDEST = 1e12  # largest range in units of the scale: its squares fit float32


class Survey(NamedTuple):
    """What one pass over features finds.

    Attributes:
        finite: which rows hold no NaN and no infinite number.
        least: of the finite rows, by feature.
        most: of the finite rows, by feature.
    """

    finite: Bool[np.ndarray, "n"]
    least: Float64[np.ndarray, "d"]
    most: Float64[np.ndarray, "d"]


def survey(rows: Rows, *, by_shares: bool = False) -> Survey:
    """Reads all features once, a block at a time, in the type that they have.

    Args:
        rows: features `[n d]`.
        by_shares: each of several processes reads its own part of the rows; all have to call this.
    """
    if not by_shares:
        return _survey(rows, slice(0, rows.shape[0]))
    found = _survey(rows, own_share(rows.shape[0]))
    finite, bounds = gather_shares(found.finite, rows.shape[0]), gather_each(np.stack([found.least, found.most]))
    return Survey(finite, bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0))


def _survey(rows: Rows, share: slice) -> Survey:
    width, begin, end = rows.shape[1], share.start, share.stop
    size = max(1, BLOCK_BYTES // (4 * width))
    finite, least, most = np.zeros(end - begin, bool), np.full(width, np.inf), np.full(width, -np.inf)
    for first in range(begin, end, size):
        part = np.asarray(rows[first : min(first + size, end)])
        part = part.astype(np.float32) if part.dtype.itemsize < 4 else part
        sound = np.isfinite(part).all(axis=1)
        finite[first - begin : first - begin + size] = sound
        if sound.any():
            kept = part if sound.all() else part[sound]
            least, most = np.minimum(least, kept.min(axis=0)), np.maximum(most, kept.max(axis=0))
    return Survey(finite, least, most)


def find_frame(rows: Rows, found: Survey) -> Frame:
    """The frame of features.

    The origin is the median of features that are more than 8 of their deviations from 0, and 0 for the others; the
    scale is a power of two, so that float32 features which need no origin keep all their bits.

    Args:
        rows: features `[n d]`; where none is finite, the frame is what they are.
        found: by `survey`.
    """
    if not found.finite.any():
        return Frame(np.zeros(rows.shape[1]))
    sample = _sample(rows, np.flatnonzero(found.finite))
    middle = np.median(sample, axis=0)
    apart = np.abs(sample - middle)
    widest = float((found.most - found.least).max())
    if widest == 0:
        return Frame(np.where(np.abs(middle) > NEAR_1, middle, 0.0))
    largest = apart.max() or widest
    spread = max(largest * float(np.sqrt(((apart / largest) ** 2).mean())) or widest, widest / WIDEST)
    typical = np.median(apart, axis=0)
    origin = np.where(np.abs(middle) > FAR * np.where(typical > 0, typical, spread), middle, 0.0)
    if 1 / NEAR_1 <= spread <= NEAR_1:
        return Frame(origin)
    return Frame(origin, float(2.0 ** np.round(np.log2(spread))))


def framed(rows: Rows) -> FramedRows:
    """Features in the frame that fits them."""
    return FramedRows(rows, find_frame(rows, survey(rows)))


def _sample(rows: Rows, kept: np.ndarray) -> Float64[np.ndarray, "m d"]:
    most = max(64, SAMPLE_FLOATS // rows.shape[1])
    if len(kept) > most:
        kept = np.sort(np.random.default_rng(0).choice(kept, most, replace=False))
    return np.asarray(rows[kept]).astype(np.float64)
