# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ncjax.collapse.measure import Labelled, measure
from ncjax.evaluation.uncertainty import with_deviations
from ncjax.results import Measurement


def ratio(train, test=None):
    """nc1_ratio of the fine labels."""
    return [m for m in measure(train, test, (0, 1), metrics=("nc1",)).measurements if m.metric == "nc1_ratio"]


def test_bootstrap_agrees_with_fresh_draws():
    """The spread over resamples of one draw is about that over draws of the same distribution."""
    y = (np.arange(2000) % 2).astype(np.int32)
    draws = [
        Labelled((3 * np.eye(2, 8)[y] + np.random.default_rng(seed).normal(size=(2000, 8))).astype(np.float32), y)
        for seed in range(41)
    ]
    (found,) = with_deviations(ratio(draws[0]), draws[0], None, ratio, 40)
    fresh = [ratio(data)[0].value for data in draws[1:]]
    assert found.value == ratio(draws[0])[0].value
    assert found.std == pytest.approx(np.std(fresh, ddof=1), rel=0.5)


def test_rows_that_are_left_out_are_never_drawn():
    rows, y = np.ones((60, 2), np.float32), (np.arange(60) % 2).astype(np.int32)
    rows[7] = np.nan
    weights = np.where(np.arange(60) == 7, 0, 1).astype(np.float32)
    seen = []

    def count(train, test):
        seen.append(train.counts)
        return [Measurement(metric="x", split="train", level="fine", value=float(train.counts.sum()))]

    (found,) = with_deviations(count(Labelled(rows, y, weights), None), Labelled(rows, y, weights), None, count, 5)
    assert all(counts[7] == 0 for counts in seen)
    assert all(counts[y == 0].sum() == 30 and counts[y == 1].sum() == 29 for counts in seen[1:])
    assert found.std == 0


def test_a_measure_that_some_resample_lacks_has_no_deviation():
    data = Labelled(np.ones((8, 2), np.float32), (np.arange(8) % 2).astype(np.int32))
    values = iter([1.0, None, 2.0])

    def flaky(train, test):
        return [Measurement(metric="x", split="train", level="fine", value=next(values))]

    (found,) = with_deviations(flaky(data, None), data, None, flaky, 2)
    assert (found.value, found.std) == (1.0, None)
