# SPDX-License-Identifier: Apache-2.0
"""How much measures of collapse vary over resamples of the examples."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ncjax.collapse.measure import Labelled
from ncjax.results import Measurement

MOST_NETWORKS = 10  # of a run; more of them show by themselves how measures vary
Measure = Callable[[Labelled, Labelled | None], Sequence[Measurement]]


def with_deviations(
    measurements: Sequence[Measurement], train: Labelled, test: Labelled | None, measure: Measure, resamples: int
) -> tuple[Measurement, ...]:
    """The measurements with their standard deviation over resamples of the examples (Efron 1979).

    Each resample draws as many examples of each fine class as there are, with replacement, and is measured as a whole.
    It says how much the examples matter, not how much another training would change.

    Args:
        measurements: what `measure` found of the examples as they are.
        train: the examples.
        test: None: there is no test split.
        measure: of both splits.
        resamples: 2 or more.
    """
    rng = np.random.default_rng(0)
    drawn = [measure(_resample(train, rng), None if test is None else _resample(test, rng)) for _ in range(resamples)]
    values: dict[tuple[object, ...], list[float | None]] = {}
    for found in drawn:
        for one in found:
            values.setdefault(_key(one), []).append(one.value)
    return tuple(dataclasses.replace(one, std=_deviation(values.get(_key(one), []), resamples)) for one in measurements)


def _key(one: Measurement) -> tuple[object, ...]:
    return one.metric, one.split, one.level, one.index


def _deviation(values: Sequence[float | None], resamples: int) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) == resamples else None


def _resample(data: Labelled, rng: np.random.Generator) -> Labelled:
    weights = np.zeros(len(data.fine), np.float32)
    for label in np.unique(data.fine):
        rows = np.flatnonzero((data.fine == label) & (data.counts > 0))
        weights[rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows))) if len(rows) else 0
    return data._replace(weights=weights)
