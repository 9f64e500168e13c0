# SPDX-License-Identifier: Apache-2.0
"""Blocks of examples, and moments by one pass over them."""

from operator import itemgetter

import jax
import numpy as np
import pytest

from ncjax.collapse import nc1
from ncjax.collapse.reading import SUBSAMPLE, Labelled, blocks, gather_moments, subsample
from tests.collapse import oracle
from tests.collapse.inputs import D, N, some


def test_moments_stay_exact_far_from_0():
    """Spread 1 at 10^5 from the origin: sums of squares in float32 would lose all of it."""
    x, y = some(1, offset=1e5)
    moments = gather_moments(Labelled(x, y), np.ones((1, N), np.float32), 8)
    found = nc1(jax.tree.map(itemgetter(0), moments.fine))
    assert float(found.nc1) == pytest.approx(oracle.level(x, y)["nc1"], rel=1e-3)


def test_the_last_block_is_padded_and_what_has_weight_0_becomes_0(monkeypatch):
    monkeypatch.setattr("ncjax.collapse.reading.BLOCK_BYTES", 4 * D * 70)
    x, y = some(1)
    x[3] = np.nan
    weights = np.where(np.arange(N) == 3, 0, 1).astype(np.float32)
    found = list(blocks(Labelled(x, y, weights)))
    assert [block.features.shape for block in found] == [(70, D)] * 4
    joined = [np.concatenate([np.asarray(block[i]) for block in found]) for i in range(3)]
    np.testing.assert_array_equal(joined[0][:N], np.nan_to_num(x))
    np.testing.assert_array_equal(joined[1][:N], y)
    np.testing.assert_array_equal(joined[2], np.concatenate([weights, np.zeros(40)]))
    assert not joined[0][N:].any()


def test_a_subsample_is_drawn_at_random_and_padded():
    """Of rows in turns an even spacing would draw one kind alone."""
    count = 4 * SUBSAMPLE
    coarse = (np.arange(count + 5) >= count).astype(np.int64)
    rows = np.arange(count + 5, dtype=np.float32)[:, None]
    weights = np.ones(count + 5, np.float32)
    weights[-1] = 0
    found = subsample(Labelled(rows, coarse.astype(np.int32), weights), coarse, 2)
    assert found.points.shape == (2, SUBSAMPLE, 1)
    chosen = np.asarray(found.points[0, :, 0])
    assert len(set(chosen.tolist())) == SUBSAMPLE
    kinds = np.bincount(chosen.astype(int) % 4)
    assert (abs(kinds - SUBSAMPLE / 4) < 100).all()
    assert found.points[1, :5, 0].tolist() == [count, count + 1, count + 2, count + 3, 0]
    assert found.weights.sum(axis=1).tolist() == [SUBSAMPLE, 4]
