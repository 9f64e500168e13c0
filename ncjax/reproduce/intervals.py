# SPDX-License-Identifier: Apache-2.0
"""Differences of means with 95 % confidence intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LEVEL = 0.95


class Difference(NamedTuple):
    """The mean of one thing minus that of another.

    Attributes:
        mean: of the differences.
        half: half of the width of the interval around it; None: there is one value, so that there is no spread.
        n: of pairs, or the smaller number of values.
        paired: whether values of the same seed were subtracted.
    """

    mean: float
    half: float | None
    n: int
    paired: bool


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """The difference of two sets of values by seed: by pairs where they have the same seeds, else of the means.

    Pairs: `mean +- t s / sqrt(n)` of the differences, with Student's t of `n - 1` degrees of freedom. Else Welch's
    interval, with the degrees of freedom of Welch and Satterthwaite. Both suppose that seeds are independent and
    normally distributed. None: one of the sets is empty.

    Example:
        >>> difference({0: 1.0, 1: 2.0}, {0: 0.5, 1: 1.5})
        Difference(mean=0.5, half=0.0, n=2, paired=True)
    """
    if not (ours and theirs):
        return None
    if ours.keys() == theirs.keys():
        pairs = [ours[seed] - theirs[seed] for seed in ours]
        return Difference(statistics.fmean(pairs), _half([pairs]), len(pairs), True)
    sides = [list(ours.values()), list(theirs.values())]
    mean = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
    return Difference(mean, _half(sides), min(map(len, sides)), False)


def _half(samples: Sequence[Sequence[float]]) -> float | None:
    """Half of the interval of a mean, or of a difference of two."""
    if min(map(len, samples)) < 2:
        return None
    errors = [statistics.variance(sample) / len(sample) for sample in samples]
    if not sum(errors):
        return 0.0
    freedom = sum(errors) ** 2 / sum(e**2 / (len(s) - 1) for e, s in zip(errors, samples, strict=True))
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(errors))


def written(found: Difference | None, form: str = ".1f", scale: float = 1.0) -> str:
    """Such as `-1.2 ± 0.4 (n = 3, by seed)`; a dash where there is none."""
    if found is None:
        return "–"
    spread = "" if found.half is None else f" ± {scale * found.half:{form}}"
    return f"{scale * found.mean:+{form}}{spread} (n = {found.n}{', by seed' if found.paired else ''})"
