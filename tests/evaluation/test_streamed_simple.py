# SPDX-License-Identifier: Apache-2.0
"""Simple probes by blocks give the predictions of those in memory, and of scikit-learn."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ncjax.collapse.reading import Labelled
from ncjax.evaluation import streamed_simple
from ncjax.evaluation.simple_probes import few_shot
from ncjax.evaluation.streamed_moments import centred_products, class_means, scaling_of
from ncjax.evaluation.streamed_simple import (
    accuracy_of,
    drawn_shots,
    streamed_few_shot,
    streamed_neighbours,
    streamed_ridge,
)
from tests.evaluation.arrays import split_digits


@pytest.fixture
def digits(monkeypatch):
    """With a row of NaN in each split."""
    monkeypatch.setattr("ncjax.collapse.reading.BLOCK_BYTES", 4 * 64 * 100)
    monkeypatch.setattr(streamed_simple, "NEIGHBOUR_BYTES", 4 * 64 * 150)
    splits = []
    for x, y in zip(*[iter(split_digits())] * 2, strict=True):
        bad, weights = x.copy(), np.ones(len(x), np.float32)
        bad[7], weights[7] = np.nan, 0
        splits.append((Labelled(bad, y, weights), np.delete(x, 7, 0), np.delete(y, 7)))
    return splits


def test_ridge_is_scikit_learns(digits):
    (train, x, y), (test, z, w) = digits
    means = class_means(train, 10)
    (products,) = centred_products(train, np.zeros(len(train.fine), np.int32), means.mean[None])
    found = streamed_ridge(means, products, scaling_of(means, np.diag(products)))
    x, z = x.astype(np.float64), z.astype(np.float64)
    scaler = StandardScaler().fit(x)
    wanted = RidgeClassifier(alpha=1.0).fit(scaler.transform(x), y)
    origin, weights, bias = (np.asarray(part, np.float64) for part in found)
    scores = (z - origin) @ weights + bias
    np.testing.assert_allclose(scores, wanted.decision_function(scaler.transform(z)), atol=1e-5)
    assert accuracy_of(found, test) == pytest.approx(wanted.score(scaler.transform(z), w))


@pytest.mark.parametrize("memory", [1, 2**30])
def test_neighbours_are_scikit_learns(digits, memory, monkeypatch):
    monkeypatch.setattr(streamed_simple, "QUERIES", 64)
    (train, x, y), (test, z, _) = digits
    found = list(streamed_neighbours(train, test, class_means(train, 10), 20, memory))
    assert len(found) == (1 if memory > 1 else -(-len(z) // 64))
    wanted = KNeighborsClassifier(20).fit(x, y).predict(z)
    assert (np.concatenate(found) == wanted).mean() > 0.998  # equal distances may be ordered otherwise


def test_few_shot_draws_what_is_drawn_in_memory(digits):
    (train, x, y), (test, z, w) = digits
    key = jax.random.key(3)
    found = streamed_few_shot(key, train, test, class_means(train, 10), 5)
    np.testing.assert_allclose(found, few_shot(key, x, y, z, w, 10, shots=5), atol=1e-6)


def test_a_class_with_few_examples_gives_all_and_one_without_none():
    labels = np.array([0, 0, 0, 2, 2], np.int32)
    for rows in drawn_shots(jax.random.key(0), labels, 3, 2):
        assert [len(own) for own in rows] == [2, 0, 2]
        assert set(rows[2]) == {3, 4}


def test_a_process_without_test_rows_adds_nothing_to_the_others(digits, monkeypatch):
    """What it gives to the sum has the shape and type of what they give."""
    (train, *_), (test, *_) = digits
    means, given = class_means(train, 10), []
    none = Labelled(np.zeros((0, train.rows.shape[1]), np.float32), np.zeros(0, np.int32))
    monkeypatch.setattr(Labelled, "own_part", lambda self: none)
    monkeypatch.setattr(streamed_simple, "sum_over_processes", lambda array: given.append(array) or array)
    (products,) = centred_products(train, np.zeros(len(train.fine), np.int32), means.mean[None])
    accuracy_of(streamed_ridge(means, products, scaling_of(means, np.diag(products))), test)
    streamed_few_shot(jax.random.key(0), train, test, means, 5)
    assert [(array.dtype, array.shape, array.any()) for array in given] == [
        (np.float64, (), False),
        (np.float64, (20,), False),
    ]
