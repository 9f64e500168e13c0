# SPDX-License-Identifier: Apache-2.0
"""The checks of values find what is wrong."""

import numpy as np
import pytest

from ncjax.bench import correctness
from ncjax.bench.correctness import Check
from ncjax.cluster.solver import KMeansResult


@pytest.mark.slow
def test_values_agree_here():
    result = correctness.bench_correctness("", toy=True)
    assert result.notes == (f"{len(result.rows)} of {len(result.rows)} values agree with float64 on the host.",)
    assert {row.name.split(":")[0] for row in result.rows} >= {"k-means", "linear probe", "NC1", "training step"}


def test_what_is_off_is_named(monkeypatch):
    for name in ("product_checks", "probe_checks", "kmeans_checks", "collapse_checks", "step_checks"):
        monkeypatch.setattr(correctness, name, lambda *_, name=name: [Check(name, 0.5, 1.0)])
    monkeypatch.setattr(correctness, "collapse_checks", lambda: [Check("NC1", np.nan, 1.0), Check("CDNV", 2.0, 1.0)])
    assert correctness.bench_correctness("", toy=True).notes == (
        "4 of 6 values agree with float64 on the host.",
        "OFF: NC1: nan, more than 1",
        "OFF: CDNV: 2, more than 1",
    )


@pytest.mark.parametrize(
    ("labels", "inertia", "off"),
    [([0, 0, 1, 1], 1.0, set()), ([0, 1, 1, 1], 1.0, {"inertia", "farther"}), ([0, 0, 1, 1], 1.1, {"inertia"})],
)
def test_wrong_labels_and_a_wrong_inertia_are_found(labels, inertia, off):
    points = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    found = KMeansResult(np.array([[0.5], [10.5]]), np.array(labels, np.int32), inertia, 1, True, np.array([inertia]))
    checks = list(correctness._of_clusters("k", points, found))
    assert {check.name.removeprefix("k: ").split()[0] for check in checks[:2] if check.error > check.tolerance} == off
