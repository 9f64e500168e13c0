# SPDX-License-Identifier: Apache-2.0
"""Sums of clusters by the kernel, interpreted, against NumPy in float64."""

import jax
import numpy as np
import pytest

from ncjax.ops import pallas, segments
from ncjax.ops.segments import group_by_label, segment_sums


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    pytest.importorskip("jax.experimental.pallas.triton")
    monkeypatch.setattr(pallas, "INTERPRET", True)


def wanted(rows, weights, labels, k):
    sums, wide = np.zeros((k, rows.shape[1])), weights[:, None].astype(np.float64) * rows
    np.add.at(sums, labels, wide)
    return sums, np.bincount(labels, weights, k)


@pytest.mark.parametrize("programs", [1, 40, 4096])
@pytest.mark.parametrize(("n", "d", "k"), [(500, 5, 7), (33, 20, 3), (1, 1, 2)])
def test_sums_and_mass_are_those_of_numpy(monkeypatch, programs, n, d, k):
    monkeypatch.setattr(segments, "PROGRAMS", programs)
    rng = np.random.default_rng(0)
    rows, weights = rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, 3, n).astype(np.float32)
    labels = rng.integers(0, k, n).astype(np.int32)
    labels[labels == k - 1] = 0  # one cluster is empty
    found = jax.jit(segment_sums, static_argnums=3)(rows, weights, labels, k)
    for ours, theirs in zip(found, wanted(rows, weights, labels, k), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("n", [1, 511, 512, 5000])
def test_rows_are_grouped_in_their_order(n):
    labels = np.random.default_rng(1).integers(0, 9, n).astype(np.int32)
    starts, ends, order = jax.jit(group_by_label, static_argnums=1)(labels, 12)
    np.testing.assert_array_equal(order, np.argsort(labels, kind="stable"))
    np.testing.assert_array_equal(ends - starts, np.bincount(labels, minlength=12))
    np.testing.assert_array_equal(ends, np.cumsum(np.bincount(labels, minlength=12)))


def test_one_cluster_that_has_all_points():
    rows = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    weights, labels = np.ones(3000, np.float32), np.full(3000, 2, np.int32)
    sums, mass = jax.jit(segment_sums, static_argnums=3)(rows, weights, labels, 5)
    np.testing.assert_allclose(sums[2], rows.sum(axis=0, dtype=np.float64), atol=1e-3)
    np.testing.assert_array_equal(mass, [0, 0, 3000, 0, 0])
