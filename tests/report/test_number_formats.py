# SPDX-License-Identifier: Apache-2.0
"""Numbers as journals print them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncjax.report.number_formats import MISSING, number, percent, score, with_spread

finite = st.floats(-1e250, 1e250).filter(lambda x: x == 0 or abs(x) > 1e-250)


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (52.04, 2.13, "52.0 ± 2.1"),
        (441.3, 12.7, "441 ± 13"),
        (441.3, 131.0, "441 ± 131"),
        (441.3, None, "441"),
        (0.01234, None, "0.0123"),
        (0.0123, 0.0, "0.0123 ± 0.0000"),
        (0.2, 0.0996, "0.20 ± 0.10"),
        (1.0, 1.5, "1.0 ± 1.5"),
        (-0.5, 0.03, "-0.500 ± 0.030"),
        (0.0, None, "0.0"),
        (-0.0, None, "0.0"),
        (-1e-6, 6.2e-4, "(0.0 ± 6.2) × 10⁻⁴"),
        (123456.0, None, "123,456"),
        (9.996, None, "10.0"),
        (1234567.0, 5000.0, "(1.235 ± 0.005) × 10⁶"),
        (2.5e-7, 4e-9, "(2.500 ± 0.040) × 10⁻⁷"),
        (2.5e-7, None, "2.50 × 10⁻⁷"),
        (441.0, 1e-9, "441.0 ± 0.0"),
        (None, 1.0, MISSING),
        (math.nan, 1.0, MISSING),
        (3.0, math.inf, "3.00"),
    ],
)
def test_the_spread_decides_the_decimals(mean, spread, text) -> None:
    assert with_spread(mean, spread) == text


@given(finite, st.none() | finite.map(abs))
def test_a_number_reads_as_what_it_is_and_has_no_letter(mean, spread) -> None:
    text = with_spread(mean, spread)
    assert not re.search("[a-zA-Z]", text)
    plain, power = re.fullmatch(r"(.*?)(?: × 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", text).groups()
    factor = 10.0 ** int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))) if power else 1.0
    shown = [float(part.replace(",", "")) * factor for part in plain.strip("()").split(" ± ")]
    assert len(shown) == (1 if spread is None else 2)
    assert shown[0] == pytest.approx(mean, rel=0.006, abs=0.06 * max(abs(mean), spread or 0.0))
    if spread is not None:
        assert shown[1] == pytest.approx(spread, rel=0.06, abs=6e-4 * max(abs(mean), spread))


def test_shares_scores_and_sizes() -> None:
    assert percent([0.84, 0.848]) == "84.4 ± 0.6"
    assert percent([0.84]) == "84.0"
    assert percent([-0.0001]) == "0.0"
    assert score([0.5, 0.5]) == "0.500 ± 0.000"
    assert number([100.0, 200.0]) == "150 ± 71"
    assert [write([]) for write in (percent, score, number)] == [MISSING] * 3
