# SPDX-License-Identifier: Apache-2.0
"""Intervals beside scipy's tests, and the cases without a spread."""

import doctest

import numpy as np
import pytest
from scipy import stats

from ncjax.reproduce import intervals
from ncjax.reproduce.intervals import difference, written

RNG = np.random.default_rng(0)


def test_examples_in_docstrings():
    found = doctest.testmod(intervals)
    assert (found.attempted, found.failed) == (1, 0)


def by_seed(values, first=0):
    return dict(enumerate(map(float, values), first))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_pairs_as_scipy(count):
    one, other = RNG.normal(1, 2, count), RNG.normal(0, 1, count)
    found = difference(by_seed(one), by_seed(other))
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (found.paired, found.n) == (True, count)
    np.testing.assert_allclose([found.mean - found.half, found.mean + found.half], [low, high])


@pytest.mark.parametrize(("few", "many"), [(2, 3), (3, 8)])
def test_unlike_seeds_as_welch(few, many):
    one, other = RNG.normal(1, 2, few), RNG.normal(0, 1, many)
    found = difference(by_seed(one), by_seed(other, first=1))
    low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert (found.paired, found.n) == (False, few)
    np.testing.assert_allclose([found.mean - found.half, found.mean + found.half], [low, high])


def test_one_value_has_no_interval_and_none_no_difference():
    assert difference({0: 3.0}, {0: 1.0})[:2] == (2.0, None)
    assert difference({0: 3.0, 1: 4.0}, {0: 1.0})[:2] == (2.5, None)
    assert difference({}, {0: 1.0}) is None


def test_a_spread_of_zero_is_an_interval_of_zero():
    assert difference({0: 3.0, 1: 3.0}, {0: 1.0, 1: 1.0}).half == 0


def test_as_text():
    assert written(difference({0: 0.9, 1: 0.8}, {0: 0.95, 1: 0.86}), scale=100.0) == "-5.5 ± 6.4 (n = 2, by seed)"
    assert written(difference({0: 0.9}, {0: 0.8}), scale=100.0) == "+10.0 (n = 1, by seed)"
    assert written(None) == "–"


def test_the_interval_holds_the_truth_as_often_as_it_says():
    hits = 0
    for _ in range(2000):
        found = difference(by_seed(RNG.normal(1, 1, 4)), by_seed(RNG.normal(0, 2, 4)))
        hits += abs(found.mean - 1) <= found.half
    assert 0.93 < hits / 2000 < 0.97
