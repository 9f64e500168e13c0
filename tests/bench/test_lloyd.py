# SPDX-License-Identifier: Apache-2.0
"""Steps of Lloyd's algorithm from given centroids, and the share of the bound."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from ncjax.bench import lloyd
from ncjax.bench.interleave import Measured
from ncjax.bench.lloyd import Lloyd

WORK = Lloyd(400, 6, 20, 3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_is_timed_are_these_steps(tmp_path):
    assert lloyd.our_timer(WORK, tmp_path / "labels.npy")() > 0
    points = lloyd.make_points(WORK)
    theirs = KMeans(20, init=points[:20], n_init=1, max_iter=3, tol=0, algorithm="lloyd")
    theirs.fit(points)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), theirs.predict(points))


def test_the_share_of_the_bound(monkeypatch):
    measured = {lloyd.OURS: Measured((0.05, 0.04, 0.06), 1.0, 0, ""), lloyd.PRODUCT: Measured((800.0,), 1.0, 0, "")}
    monkeypatch.setattr(lloyd, "interleave", lambda peers, rounds: measured)
    result = lloyd.bench_lloyd(lloyd.LARGE, "", rounds=3)
    assert result.notes[0] == (
        "The distances of all steps are 6.4 TFLOP in one product: 8 ms at the 800 TFLOP/s of a large product in "
        "float16, 0.160 of ncjax's time."
    )
    assert result.rows[0].median == 0.05


def test_a_product_has_a_rate():
    assert lloyd.product_timer(64)() > 0
