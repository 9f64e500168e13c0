# SPDX-License-Identifier: Apache-2.0
"""Several draws of examples that are read in blocks: the values of those in memory, by two passes for all draws."""

import numpy as np
import pytest

from ncjax.collapse import measure as module
from ncjax.collapse.measure import Problem, measure_networks
from ncjax.collapse.reading import Classifier, Labelled
from tests.collapse.inputs import SUPER, D, N, assert_same_values, some, values


class Counted:
    """Rows that count how often all of them were read."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape, self.passes = rows, rows.shape, 0.0

    def __getitem__(self, index) -> np.ndarray:
        found = self.rows[index]
        self.passes += len(found) / len(self.rows)
        return found


def problem(rows) -> Problem:
    (_, y), classifier = some(3), Classifier(np.eye(8, D, dtype=np.float32), np.zeros(8, np.float32))
    weights = (np.arange(N) != 5).astype(np.float32)
    test = Labelled(*some(4))
    train = Labelled(rows, y, weights)
    return Problem(train=train, test=test, super_class=SUPER, classifier=classifier, resamples=3)


@pytest.mark.parametrize("together", [4, 3, 1])
def test_streamed_values_and_deviations_are_those_in_memory(monkeypatch, together):
    monkeypatch.setattr("ncjax.collapse.reading.BLOCK_BYTES", 4 * D * 70)
    x = some(3)[0]
    x[5] = np.nan
    (wanted,) = measure_networks([problem(x)])
    rows = Counted(x)
    a_draw = module.DRAW_COPIES * (4 * D * D + 4 * module.CLASS_ARRAYS * D * 8)
    memory = int(together * a_draw / module.RESIDENT_SHARE)
    (found,) = measure_networks([problem(rows)], memory_bytes=memory)
    for split in ("train", "test"):
        assert_same_values(values(found, split), values(wanted, split))
    for ours, theirs in zip(found.measurements, wanted.measurements, strict=True):
        assert (ours.std is None) == (theirs.std is None)
        if theirs.std is not None:
            assert ours.std == pytest.approx(theirs.std, rel=1e-3, abs=1e-5)
    subsamples = 4  # of each draw: all rows, for they are few
    assert rows.passes <= 2 * -(-4 // together) + subsamples + 1e-6
