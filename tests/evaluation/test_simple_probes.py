# SPDX-License-Identifier: Apache-2.0
"""Probes against scikit-learn's, and how far measures vary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ncjax.evaluation.evaluator import evaluate
from ncjax.evaluation.linear_probe import fit_linear_probe
from ncjax.evaluation.simple_probes import few_shot, nearest_neighbours, ridge_probe
from ncjax.features.feature_set import FeatureSet


def digits():
    data = load_digits()
    points, labels = data.data.astype(np.float32), data.target.astype(np.int32)
    return points[::2], labels[::2], points[1::2], labels[1::2]


@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_ridge_probe_is_scikit_learns(alpha):
    x, y, z, _ = digits()
    theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha)).fit(x.astype(np.float64), y)
    ours = ridge_probe(jnp.asarray(x), jnp.asarray(y), 10, alpha=alpha)
    np.testing.assert_allclose(ours.scores(jnp.asarray(z)), theirs.decision_function(z.astype(np.float64)), atol=2e-3)


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_nearest_neighbours_are_scikit_learns(neighbours):
    x, y, z, _ = digits()
    ours = nearest_neighbours(jnp.asarray(x), jnp.asarray(y), jnp.asarray(z), 10, neighbours)
    theirs = KNeighborsClassifier(neighbours, algorithm="brute").fit(x.astype(np.float64), y).predict(z)
    assert (np.asarray(ours) == theirs).mean() >= 0.995  # one of equal distances may be another


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


# ------------------------------------------------------------------ any offset, unit and distance of classes


def small(siblings=1.0, spread=0.3, d=8):
    """Four classes in two pairs that are `siblings` apart."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 600).astype(np.int32)
    x = 5 * rng.normal(size=(2, d))[y % 2] + siblings * rng.normal(size=(4, d))[y]
    return x + spread * siblings * rng.normal(size=x.shape), y


def with_a_constant():
    x, y = small()
    x[:, 3] = 7e3
    return x, y


INPUTS = {
    "plain": (small(spread=1.0), 1.0, 0.0),
    "siblings 1e-2 apart": (small(1e-2), 1.0, 0.0),
    "siblings 1e-3 apart": (small(1e-3), 1.0, 0.0),
    "siblings 1e-4 apart": (small(1e-4, 0.1), 1.0, 0.0),
    "far": (small(spread=1.0), 1.0, 1e6),
    "farther": (small(spread=1.0), 1.0, 1e9),
    "tiny": (small(spread=1.0), 1e-20, 0.0),
    "huge": (small(spread=1.0), 1e20, 0.0),
    "tiny and far": (small(spread=1.0), 1e-15, 1e5),
    "unlike": ((small(spread=1.0)[0] * np.geomspace(1e-12, 1, 8), small()[1]), 1e-5, 0.0),
    "a constant feature": (with_a_constant(), 1.0, 0.0),
    "one feature": (small(spread=1.0, d=1), 1.0, 0.0),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "one feature" else n for n in INPUTS])
def test_probes_of_any_features_are_scikit_learns(name):
    """On the same features without offset and unit, for float64 loses them too."""
    (x, y), unit, offset = INPUTS[name]
    found = evaluate(FeatureSet.from_arrays(*(part for i in (0, 1) for part in (unit * (x[i::2] + offset), y[i::2]))),
                     views=(), metrics=("cdnv",), bootstrap=0).rows[0]  # fmt: skip
    z, w = x[1::2], y[1::2]
    logistic = LogisticRegression(C=1 / (300 * 1e-4), max_iter=2000)
    for probe, model in (
        ("probe", make_pipeline(StandardScaler(), logistic)),
        ("ridge_probe", make_pipeline(StandardScaler(), RidgeClassifier(1.0))),
        ("knn_probe", KNeighborsClassifier(20, algorithm="brute")),
    ):
        assert found.value(probe) == pytest.approx(model.fit(x[::2], y[::2]).score(z, w), abs=0.014), probe
    means = np.stack([x[::2][y[::2] == c].mean(0) for c in range(4)])
    nearest = (((z[:, None] - means) ** 2).sum(-1).argmin(1) == w).mean()
    assert found.value("few_shot") == pytest.approx(nearest, abs=0.15)
    public = fit_linear_probe(unit * (x[::2] + offset), y[::2], 4)
    assert (np.asarray(public.predict(unit * (z + offset))) == w).mean() == pytest.approx(
        found.value("probe"), abs=0.014
    )
