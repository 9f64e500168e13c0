# SPDX-License-Identifier: Apache-2.0
"""Clusters matched to classes, and their scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncjax.cluster import match_clusters, score_against_classes


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(6)), st.integers(0, 10**6))
def test_matching_undoes_a_renaming(renaming, seed):
    classes = np.random.default_rng(seed).integers(0, 6, 200).astype(np.int32)
    clusters = np.asarray(renaming, np.int32)[classes]
    matching = match_clusters(clusters, classes, np.ones((6, 6), bool))
    np.testing.assert_array_equal(matching[clusters], classes)


def test_matching_stays_inside_super_classes():
    classes = np.repeat(np.arange(4, dtype=np.int32), 10)
    clusters = np.repeat(np.array([2, 3, 0, 1], np.int32), 10)
    allowed = np.kron(np.eye(2), np.ones((2, 2))).astype(bool)
    matching = match_clusters(clusters, classes, allowed)
    assert set(matching[:2]) == {0, 1}
    assert set(matching[2:]) == {2, 3}


def test_scores_against_classes():
    classes = np.repeat(np.arange(3, dtype=np.int32), 10)
    clusters = np.where(np.arange(30) < 15, 1, 0).astype(np.int32)
    found = score_against_classes(clusters, classes)
    assert found.accuracy == pytest.approx(20 / 30)
    assert found.purity == pytest.approx(20 / 30)
    assert score_against_classes((classes + 1) % 3, classes) == pytest.approx((1, 1, 1, 1, 1))
