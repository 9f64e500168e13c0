# SPDX-License-Identifier: Apache-2.0
"""Probes against scikit-learn's, and how far measures vary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ncjax.collapse.measure import Labelled
from ncjax.evaluation.simple_probes import few_shot, nearest_neighbours, ridge_probe
from ncjax.evaluation.old_table import collapse_table
from ncjax.evaluation.uncertainty import bootstrap, combine, deviations, means, summarise_rows


def digits():
    data = load_digits()
    points, labels = data.data.astype(np.float32), data.target.astype(np.int32)
    return points[::2], labels[::2], points[1::2], labels[1::2]


@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_ridge_probe_is_scikit_learns(alpha):
    x, y, z, _ = digits()
    theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha)).fit(x.astype(np.float64), y)
    ours = ridge_probe(jnp.asarray(x), jnp.asarray(y), 10, alpha=alpha)
    scores = np.asarray(jnp.asarray(z) @ ours.weights + ours.bias[None, :])
    np.testing.assert_allclose(scores, theirs.decision_function(z.astype(np.float64)), atol=2e-3)


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_nearest_neighbours_are_scikit_learns(neighbours):
    x, y, z, _ = digits()
    ours = nearest_neighbours(jnp.asarray(x), jnp.asarray(y), jnp.asarray(z), 10, neighbours)
    theirs = KNeighborsClassifier(neighbours, algorithm="brute").fit(x.astype(np.float64), y).predict(z)
    assert (np.asarray(ours) == theirs).mean() >= 0.999  # one of equal distances may be another


def test_few_shot_is_the_nearest_of_the_means():
    """With all examples drawn, an episode is a nearest-mean classifier; with one each, it is worse."""
    x, y, z, w = digits()
    means = np.stack([x[y == c].mean(0) for c in range(10)])
    wanted = (((z[:, None] - means[None]) ** 2).sum(-1).argmin(1) == w).mean()
    arrays = [jnp.asarray(a) for a in (x, y, z, w)]
    found = few_shot(jax.random.key(0), *arrays, 10, shots=len(x), episodes=2)
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    one = few_shot(jax.random.key(0), *arrays, 10, shots=1, episodes=20)
    assert 0.3 < float(one.mean()) < wanted - 0.1


def test_bootstrap_is_the_standard_error_of_a_mean_distance():
    """Of `2 v`, the mean squared distance inside a Gaussian class: its standard error is known."""
    rng = np.random.default_rng(0)
    y = np.arange(2000, dtype=np.int32) % 2
    x = (3 * np.eye(2, 8)[y] + rng.normal(size=(2000, 8))).astype(np.float32)
    found = bootstrap(Labelled(x, y), None, (0, 1), None, 40)["train"]["fine"]["nc1_ratio"]
    fresh = []
    for seed in range(40):
        noise = np.random.default_rng(seed + 1).normal(size=(2000, 8))
        data = Labelled((3 * np.eye(2, 8)[y] + noise).astype(np.float32), y)
        fresh.append(collapse_table(data, None, (0, 1)).values["train"]["fine"]["nc1_ratio"])
    assert found == pytest.approx(np.std(fresh, ddof=1), rel=0.5)


def test_numbers_of_nested_tables_are_combined():
    tables = [{"a": {"b": 1.0, "c": [1.0, None]}, "d": 2.0}, {"a": {"b": 4.0, "c": [3.0, 2.0]}}]
    assert means(tables) == {"a": {"b": 2.5, "c": [2.0, None]}}
    assert deviations(tables)["a"]["b"] == pytest.approx(np.std([1, 4], ddof=1))
    assert combine(tables[:1], max) == tables[0]


def test_rows_that_differ_by_their_seed_are_summarised():
    def row(epoch, cdnv, **more):
        return {"kind": "trained", "label_map": "mod:5", "epoch": epoch, "collapse": {"test": {"cdnv": cdnv}}} | more

    rows = [row(1, 2.0, seed=0), row(1, 4.0, seed=1), row(2, 6.0, seed=0, collapse_std={"test": {"cdnv": 0.5}})]
    first, second = summarise_rows([*rows[::2], rows[1]])
    assert (first["epoch"], first["networks"], first["over"]) == (1, 2, "seeds")
    assert first["mean"]["collapse"]["test"]["cdnv"] == 3
    assert first["std"]["collapse"]["test"]["cdnv"] == pytest.approx(2**0.5)
    assert (second["epoch"], second["networks"], second["over"]) == (2, 1, "resamples")
    assert second["mean"]["collapse"]["test"]["cdnv"] == 6
    assert second["std"]["collapse"]["test"]["cdnv"] == 0.5
    (alone,) = summarise_rows([row(3, 1.0)])
    assert alone["over"] is None
    assert alone["std"]["collapse"]["test"]["cdnv"] is None
