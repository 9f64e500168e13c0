# SPDX-License-Identifier: Apache-2.0
"""Numbers as journals print them: `52.0 ± 2.1`, `441 ± 12`, `(1.23 ± 0.04) × 10⁻⁵`; never `441 ± 1e+01`."""

import math
import statistics
from collections.abc import Sequence

MISSING = "–"
PER_CENT = "\u00a0%"
SMALL, LARGE = 1e-3, 1e6  # outside of these numbers are written with a power of ten
TINY = 1e-300  # written as 0
DIGITS = 3  # of a number without spread
MOST_DIGITS = 4  # of a number whose spread is far smaller
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(values: Sequence[float]) -> str:
    """`84.4 ± 0.3`: mean and sample standard deviation in per cent, or a dash."""
    return _fixed([100 * value for value in values], ".1f")


def score(values: Sequence[float]) -> str:
    """A score such as ARI, mean and sample standard deviation to three decimals, or a dash."""
    return _fixed(values, ".3f")


def number(values: Sequence[float]) -> str:
    """A quantity of any size, its mean and sample standard deviation as `with_spread` has them, or a dash."""
    if not values:
        return MISSING
    return with_spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def with_spread(mean: float | None, spread: float | None = None) -> str:
    """A number to the decimal that its spread has as second digit; to three digits without one, or a dash.

    Example:
        >>> with_spread(441.3, 12.7), with_spread(0.01234), with_spread(2.5e-7, 4e-9)
        ('441 ± 13', '0.0123', '(2.500 ± 0.040) × 10⁻⁷')
    """
    if mean is None or not math.isfinite(mean):
        return MISSING
    sound = spread is not None and math.isfinite(spread)
    largest = max(abs(mean), spread if spread is not None and sound else 0.0)
    largest = 0.0 if largest < TINY else largest
    if largest and not SMALL <= largest < LARGE:
        power = _exponent(largest, DIGITS)
        scaled = with_spread(mean / 10.0**power, spread / 10.0**power if spread is not None and sound else None)
        return f"({scaled})" * sound + scaled * (not sound) + f" × 10{str(power).translate(SUPERSCRIPTS)}"
    decimals = DIGITS - 1 - _exponent(largest, DIGITS) if largest else 1
    if spread is not None and sound and spread > 0:
        decimals = min(1 - _exponent(spread, 2), MOST_DIGITS - 1 - _exponent(largest, MOST_DIGITS))
    form = f",.{max(0, decimals)}f"
    return f"{_signed(mean, form)} ± {spread:{form}}" if sound else _signed(mean, form)


def _signed(value: float, form: str) -> str:
    """A number without the sign of a zero."""
    text = f"{value:{form}}"
    return text if any(digit in text for digit in "123456789") else text.lstrip("-")


def _exponent(value: float, digits: int) -> int:
    """Of ten, when the value is rounded to so many digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _fixed(values: Sequence[float], form: str) -> str:
    if not values:
        return MISSING
    mean = _signed(statistics.fmean(values), form)
    return f"{mean} ± {statistics.stdev(values):{form}}" if len(values) > 1 else mean
