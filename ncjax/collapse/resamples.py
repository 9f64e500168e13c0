# SPDX-License-Identifier: Apache-2.0
"""How much measures of collapse vary over resamples of the examples."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ncjax.collapse.reading import Labelled
from ncjax.results import Measurement


def resample(data: Labelled, rng: np.random.Generator) -> Float[np.ndarray, "n"]:
    """How often each example counts in a resample (Efron 1979).

    As many examples of each fine class are drawn as there are, with replacement; those that count 0 are not drawn.
    """
    weights = np.zeros(len(data.fine), np.float32)
    for label in np.unique(data.fine):
        rows = np.flatnonzero((data.fine == label) & (data.counts > 0))
        weights[rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows))) if len(rows) else 0
    return weights


def with_deviations(
    measurements: Sequence[Measurement], resamples: Sequence[Sequence[Measurement]]
) -> tuple[Measurement, ...]:
    """The measurements with their standard deviation over those of resamples; none where a resample lacks a value.

    It says how much the examples matter, not how much another training would change.
    """
    values: dict[tuple[object, ...], list[float]] = {}
    for found in resamples:
        for one in found:
            if one.value is not None:
                values.setdefault(_key(one), []).append(one.value)
    return tuple(dataclasses.replace(one, std=_deviation(values.get(_key(one), []), resamples)) for one in measurements)


def _key(one: Measurement) -> tuple[object, ...]:
    return one.metric, one.split, one.level, one.index


def _deviation(values: Sequence[float], resamples: Sequence[object]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) == len(resamples) > 1 else None
