# SPDX-License-Identifier: Apache-2.0
"""The streamed probe ends at the optimum of all rows, whatever the sample holds, in few passes."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ncjax.collapse.reading import Labelled
from ncjax.evaluation import streamed_probe
from ncjax.evaluation.linear_probe import fit_linear_probe
from ncjax.evaluation.logistic_loss import Parameters, Rows, evaluate_rows
from ncjax.evaluation.streamed_moments import centred_products, class_means, scaling_of
from ncjax.evaluation.streamed_probe import Problem, by_classes, chances_of, draw_rows, fit_streamed_probe
from tests.evaluation.arrays import split_digits

C = 4


@pytest.fixture(autouse=True)
def small_samples(monkeypatch):
    monkeypatch.setattr(streamed_probe, "LEAST_ROWS", 400)
    monkeypatch.setattr("ncjax.collapse.reading.BLOCK_BYTES", 2**15)


def problem(rows, labels, classes, weights=None, **options) -> Problem:
    data = Labelled(rows, np.atleast_2d(labels)[0], weights)
    means = class_means(data, classes)
    products = centred_products(data, np.zeros(len(rows), np.int32), means.mean[None])
    return Problem(data, np.atleast_2d(labels), classes, scaling_of(means, np.diag(products[0])), **options)


def made(n: int = 6000, d: int = 12, spread: float = 1.2, rare: int | None = None):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, n).astype(np.int32)
    if rare is not None:
        labels[labels == 3] = 0
        labels[rng.choice(n, rare, replace=False)] = 3
    rows = rng.normal(size=(C, d))[labels] + spread * rng.normal(size=(n, d)) * np.exp(rng.normal(size=d))
    return rows.astype(np.float32), labels


def optimum(rows, labels, l2=1e-4) -> float:
    z = StandardScaler().fit_transform(rows.astype(np.float64))
    fitted = LogisticRegression(C=1 / (l2 * len(z)), solver="newton-cg", tol=1e-8, max_iter=500).fit(z, labels)
    own = fitted.predict_log_proba(z)[np.arange(len(z)), labels]
    return float(-own.mean() + l2 / 2 * (fitted.coef_**2).sum())


@pytest.mark.parametrize("rare", [None, 5])
def test_it_ends_at_scikit_learns_optimum_in_few_passes(rare):
    rows, labels = made(rare=rare)
    probe, accuracy = fit_streamed_probe(problem(rows, labels, C), 1)
    assert bool(probe.converged[0])
    assert 2 <= int(probe.iterations[0]) <= 20
    assert float(probe.loss[0]) == pytest.approx(optimum(rows, labels), abs=1e-5)
    assert accuracy[0] == pytest.approx((np.asarray(probe.predict(rows))[0] == labels).mean(), abs=1e-6)


def test_it_is_the_probe_in_memory_for_all_labellings(monkeypatch):
    monkeypatch.setattr(streamed_probe, "LEAST_ROWS", 1024)  # all rows
    train, labels, test, _ = split_digits()
    labellings = np.stack([labels, (labels * 3 + np.arange(len(labels)) % 2) % 10]).astype(np.int32)
    found, _ = fit_streamed_probe(problem(train, labellings, 10), 1)
    wanted = fit_linear_probe(train, labellings, 10)
    assert found.converged.all()
    np.testing.assert_allclose(found.loss, wanted.loss, atol=1e-5)
    assert (np.asarray(found.predict(test)) == np.asarray(wanted.predict(test))).mean() > 0.997


def test_rows_of_weight_0_count_nothing():
    rows, labels = made(3000)
    weights = (np.arange(len(rows)) % 4 > 0).astype(np.float32)
    bad = np.where(weights[:, None] > 0, rows, np.nan)
    found, accuracy = fit_streamed_probe(problem(bad, np.where(weights > 0, labels, 0), C, weights), 1)
    kept = weights > 0
    assert float(found.loss[0]) == pytest.approx(optimum(rows[kept], labels[kept]), abs=1e-5)
    assert accuracy[0] == pytest.approx((np.asarray(found.predict(rows[kept]))[0] == labels[kept]).mean())


def test_separable_classes_converge():
    rows, labels = made(spread=0.01)
    found, accuracy = fit_streamed_probe(problem(rows, labels, C), 1)
    assert bool(found.converged[0])
    assert accuracy[0] == pytest.approx(1)
    assert float(found.loss[0]) == pytest.approx(optimum(rows, labels), abs=1e-5)


def test_a_rare_class_is_in_every_sample_whole():
    rows, labels = made(rare=5)
    asked = problem(rows, np.stack([labels, labels % 2]), C)
    chances = chances_of(by_classes(asked, 600), 600)
    np.testing.assert_array_equal(chances[labels == 3], 1)
    assert set(np.flatnonzero(labels == 3)) <= set(draw_rows(chances))


def test_chances_are_in_proportion_and_none_is_above_1():
    parts = np.random.default_rng(0).random(5000) ** 4
    parts[:100] = 0
    chances = chances_of(parts, 1000)
    index = draw_rows(chances)
    assert len(index) == pytest.approx(1000, abs=1)
    assert index.min() >= 100
    assert chances.max() == 1
    assert (1 / chances[index]).sum() == pytest.approx(4900, rel=0.2)
    assert (parts / np.where(chances > 0, chances, 1))[index].sum() == pytest.approx(parts.sum(), rel=1e-2)
    np.testing.assert_array_equal(draw_rows(chances_of(parts, 4900)), np.arange(100, 5000))


def test_passes_that_are_not_enough_are_said():
    found, _ = fit_streamed_probe(problem(*made(), C), 1, most_passes=1)
    assert not found.converged[0]
    assert float(found.suboptimality[0]) > 1e-5


def test_hits_are_counted_and_not_summed_up_of_shares():
    """Sums of many shares in float32 are above 1 at times, and so would an accuracy be."""
    rows, labels = made(20_001)
    shares = np.where(np.arange(len(rows)) < 20_000, np.float32(1 / 20_000), np.float32(0))
    weights = np.random.default_rng(1).normal(size=(1, C, rows.shape[1])).astype(np.float32)
    parameters = Parameters(jnp.asarray(weights), jnp.zeros((1, C)))
    found, _ = evaluate_rows(Rows(*map(jnp.asarray, (rows, labels[None], shares))), parameters)
    assert found.hits[0] == ((rows @ weights[0].T).argmax(axis=1) == labels)[:20_000].sum()
