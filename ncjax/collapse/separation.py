# SPDX-License-Identifier: Apache-2.0
"""The law of data separation: how fast classes separate from layer to layer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ncjax.errors import UserError


class SeparationLaw(NamedTuple):
    """`log D_l = intercept + slope * l`, by least squares over layers `l = 0, 1, ...`."""

    slope: float  # below 0 where layers separate the classes; each multiplies D by exp(slope)
    intercept: float
    r2: float  # share of the variance of log D that the line explains, from 0 to 1; 1 where D does not vary


def separation_law(separations: Sequence[float]) -> SeparationLaw:
    """Fit the law of He and Su (PNAS 2023) to the separation fuzziness `D = tr(S_W S_B^+)` of a network's layers.

    Args:
        separations: `D` of each layer, from the first to the last; `separation` in the table of collapse.

    Returns:
        Slope, intercept and `r2` of the line.

    Raises:
        UserError: there are fewer than two layers, or one has no separation above 0.

    Example:
        >>> round(separation_law([8.0, 4.0, 2.0]).slope, 4)  # halved by each layer
        -0.6931
    """
    if len(separations) < 2 or not all(np.isfinite(x) and x > 0 for x in separations):
        raise UserError(f"the law of separation needs two or more layers with D above 0, not {list(separations)}")
    layers, logs = np.arange(len(separations)), np.log(np.asarray(separations, np.float64))
    slope, intercept = np.polyfit(layers, logs, 1)
    total = ((logs - logs.mean()) ** 2).sum()
    missed = ((logs - intercept - slope * layers) ** 2).sum()
    return SeparationLaw(float(slope), float(intercept), float(1 - missed / total) if total > 0 else 1.0)
