# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ncjax.evaluation.evaluator import evaluate
from ncjax.evaluation.views import VIEWS, Embedded, Features, View
from ncjax.results import ViewInfo
from tests.evaluation.arrays import MOD5, arrays_of, only, pairs


def features(separation=3.0):
    x, y, z, w = arrays_of(pairs(separation))
    return Features(x, y % 5, z, w % 5)


def test_normalised_is_centred_in_each_super_class_and_of_length_1():
    seen = features()
    found = VIEWS["normalised"].embed(seen)
    np.testing.assert_allclose(np.linalg.norm(found.train, axis=1), 1, rtol=1e-5)
    mean = seen.train[seen.train_super == 2].astype(np.float64).mean(axis=0)
    rest = seen.test[seen.test_super == 2] - mean
    np.testing.assert_allclose(
        found.test[seen.test_super == 2], rest / np.linalg.norm(rest, axis=1)[:, None], atol=1e-4
    )


def test_residual_pca_is_white_in_each_super_class():
    seen = features()
    found = VIEWS["residual_pca"].embed(seen)
    for group in range(5):
        own = found.train[seen.train_super == group].astype(np.float64)
        np.testing.assert_allclose(own.T @ own / len(own), np.eye(8), atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tsne_embeds_some_examples_and_the_others_vote(monkeypatch):
    monkeypatch.setattr("ncjax.evaluation.views.TSNE_POINTS", 30)
    found = evaluate(pairs(6.0), label_map=MOD5, views=("tsne",), bootstrap=0)
    assert only(found).value("cluster_accuracy", split="train", view="tsne") > 0.97
    clusters = found.clusters["tsne"]
    embedded = np.isfinite(clusters.embedding[0]).all(axis=1)
    assert clusters.embedding.shape == (1, 300, 2)
    assert embedded.sum() == 5 * 30
    assert clusters.test is None
    assert (clusters.train >= 0).all()


def test_a_view_is_one_function_and_one_line_of_the_table(monkeypatch):
    def doubled(seen):
        return Embedded(2 * seen.train, 2 * seen.test)

    monkeypatch.setitem(VIEWS, "doubled", View(doubled, ViewInfo(label="twice as large")))
    found = evaluate(pairs(4.0), label_map=MOD5, views=("raw", "doubled"), bootstrap=0)
    raw, other = found.clusters["raw"], found.clusters["doubled"]
    np.testing.assert_array_equal(other.recovered_train, raw.recovered_train)
    assert found.views["doubled"].label == "twice as large"
    row = only(found)
    inertia = [row.value("inertia", split="train", view=view) for view in ("raw", "doubled")]
    assert inertia[1] == pytest.approx(4 * inertia[0], rel=1e-4)
    assert row.value("clp", view="doubled") == row.value("clp", view="raw")


def grouped(siblings=1.0, spread=0.5, d=12, unit=1.0):
    rng = np.random.default_rng(1)
    y = np.arange(120, dtype=np.int32) % 4
    x = 5 * rng.normal(size=(2, d))[y % 2] + siblings * (
        rng.normal(size=(4, d))[y] + spread * rng.normal(size=(120, d))
    )
    return (unit * x).astype(np.float32), y % 2


@pytest.mark.parametrize(
    "options",
    [{}, {"siblings": 1e-2}, {"siblings": 1e-3}, {"spread": 1e-2}, {"spread": 1e-4}, {"d": 3}, {"d": 1}, {"d": 40},
     {"unit": 1e-6}, {"unit": 1e6}, {"spread": 1e-3, "siblings": 0.1}],
)  # fmt: skip
def test_views_equal_float64(options):
    """Axes have a sign of their own: inner products are compared."""
    x, owner = grouped(**options)
    seen = Features(x, owner, x[:30], owner[:30])
    unit, white = VIEWS["normalised"].embed(seen), VIEWS["residual_pca"].embed(seen)
    for group in (0, 1):
        rest = x[owner == group].astype(np.float64)
        rest -= rest.mean(axis=0)
        lengths = np.linalg.norm(rest, axis=1, keepdims=True)
        np.testing.assert_allclose(unit.train[owner == group], rest / lengths, atol=2e-3)
        left, _, _ = np.linalg.svd(rest, full_matrices=False)
        left = left[:, :8] * len(rest) ** 0.5
        found = white.train[owner == group].astype(np.float64)
        np.testing.assert_allclose(found @ found.T, left @ left.T, atol=5e-2)
    np.testing.assert_array_equal(unit.test, unit.train[:30])


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.filterwarnings("ignore")
def test_tsne_of_few_features(d):
    rng = np.random.default_rng(0)
    y = np.arange(60, dtype=np.int32) % 3
    x = (1e-7 * (5 * y[:, None] + rng.normal(size=(60, d)))).astype(np.float32)
    found = VIEWS["tsne"].embed(Features(x, y * 0, x, y * 0))
    means = np.stack([found.train[y == c].mean(axis=0) for c in range(3)])
    nearest = ((found.train[:, None] - means) ** 2).sum(-1).argmin(axis=1)
    assert (nearest == y).mean() > 0.9


def test_an_example_at_the_mean_has_no_direction():
    x = np.array([[1.0, 3.0], [3.0, 5.0], [2.0, 4.0]], np.float32)
    found = VIEWS["normalised"].embed(Features(x, np.zeros(3, np.int32), x, np.zeros(3, np.int32)))
    np.testing.assert_allclose(np.linalg.norm(found.train, axis=1), [1, 1, 0])
