# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ncjax.collapse.measure import measure
from ncjax.collapse.reading import Labelled
from ncjax.collapse.resamples import resample, with_deviations
from ncjax.results import Measurement


def ratio(data, resamples=0):
    """nc1_ratio of the fine labels."""
    found = measure(data, None, (0, 1), metrics=("nc1",), resamples=resamples)
    (one,) = (m for m in found.measurements if m.metric == "nc1_ratio")
    return one


def test_bootstrap_agrees_with_fresh_draws():
    """The spread over resamples of one draw is about that over draws of the same distribution."""
    y = (np.arange(2000) % 2).astype(np.int32)
    draws = [
        Labelled((3 * np.eye(2, 8)[y] + np.random.default_rng(seed).normal(size=(2000, 8))).astype(np.float32), y)
        for seed in range(41)
    ]
    found = ratio(draws[0], resamples=40)
    fresh = [ratio(data).value for data in draws[1:]]
    assert found.value == pytest.approx(ratio(draws[0]).value, rel=1e-6)
    assert found.std == pytest.approx(np.std(fresh, ddof=1), rel=0.5)


def test_rows_that_are_left_out_are_never_drawn():
    y = (np.arange(60) % 2).astype(np.int32)
    weights = np.where(np.arange(60) == 7, 0, 1).astype(np.float32)
    rng = np.random.default_rng(0)
    for _ in range(5):
        counts = resample(Labelled(np.ones((60, 2), np.float32), y, weights), rng)
        assert counts[7] == 0
        assert counts[y == 0].sum() == 30
        assert counts[y == 1].sum() == 29
        assert counts.max() > 1


def lines(*values):
    return [Measurement(metric="x", split="train", level="fine", value=value) for value in values]


@pytest.mark.parametrize(("values", "std"), [((1.0, 3.0), np.sqrt(2)), ((1.0, None), None), ((None, None), None)])
def test_a_measure_that_some_resample_lacks_has_no_deviation(values, std):
    (found,) = with_deviations(lines(1.0), [lines(value) for value in values])
    assert found.value == 1.0
    assert found.std == pytest.approx(std)
