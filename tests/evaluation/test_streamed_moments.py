# SPDX-License-Identifier: Apache-2.0
"""Moments by passes over blocks are those of NumPy in float64; constant features are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.collapse.reading import Labelled
from ncjax.evaluation import streamed_moments
from ncjax.evaluation.linear_probe import standardise
from ncjax.evaluation.streamed_moments import centred_products, class_means, parts, scaling_of, total_products

SUPER = np.array([0, 1, 0, 1, 2])  # class 4 has no rows


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(streamed_moments, "BLOCK_BYTES", 4 * 6 * 31)
    rng = np.random.default_rng(0)
    rows = (100 + rng.normal(size=(200, 6)) * [1, 2, 3, 0, 1e-3, 5]).astype(np.float32)
    weights = (np.arange(200) % 7 > 0).astype(np.float32)
    return Labelled(np.where(weights[:, None] > 0, rows, np.nan), rng.integers(0, 4, 200).astype(np.int32), weights)


def kept(data: Labelled) -> tuple[np.ndarray, np.ndarray]:
    return data.rows[data.counts > 0].astype(np.float64), data.fine[data.counts > 0]


def test_parts_are_the_rows_that_count_in_order(data):
    found = list(parts(data))
    np.testing.assert_array_equal(np.concatenate([part.numbers for part in found]), np.flatnonzero(data.counts))
    np.testing.assert_array_equal(np.concatenate([part.rows for part in found]), kept(data)[0].astype(np.float32))


def test_means_of_classes_and_super_classes(data):
    (x, y), found = kept(data), class_means(data, 5)
    groups = found.merged(SUPER)
    for label in range(4):
        np.testing.assert_allclose(found.means[label], x[y == label].mean(axis=0), rtol=1e-12)
        assert found.largest[label] == np.abs(x[y == label]).max()
    assert found.counts[4] == groups.counts[2] == 0
    np.testing.assert_allclose(groups.means[1], x[SUPER[y] == 1].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)


def test_products_of_super_classes_add_up_to_those_of_all(data):
    x, y = kept(data)
    groups = class_means(data, 5).merged(SUPER)
    products = centred_products(data, SUPER[data.fine].astype(np.int32), groups.means)
    apart = x[SUPER[y] == 1] - x[SUPER[y] == 1].mean(axis=0)
    np.testing.assert_allclose(products[1], apart.T @ apart, rtol=1e-5, atol=1e-6)
    whole = x - x.mean(axis=0)
    np.testing.assert_allclose(total_products(products.sum(axis=0), groups), whole.T @ whole, rtol=1e-5, atol=1e-6)


def test_features_are_standardised_as_in_memory(data):
    x = kept(data)[0].astype(np.float32)
    means = class_means(data, 5)
    products = centred_products(data, np.zeros(len(data.fine), np.int32), means.mean[None])
    found, wanted = scaling_of(means, np.diag(products[0])), standardise(jnp.asarray(x))
    np.testing.assert_array_equal(found.varies, [True, True, True, False, True, True])
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-6)
    np.testing.assert_allclose(found.std, wanted.std, rtol=1e-4)
