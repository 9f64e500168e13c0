# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.evaluation.evaluator import evaluate
from ncjax.evaluation.views import VIEWS, Embedded, Group, View
from ncjax.ops.precision import double_precision
from ncjax.results import ViewInfo
from tests.evaluation.arrays import MOD5, arrays_of, pairs


def embed(view, train, test=None, padding=0):
    """One super-class in a view, with padding behind its training examples."""
    test = train if test is None else test
    whole = np.concatenate([train, np.full((padding, train.shape[1]), 0, np.float32)])
    weights = (np.arange(len(whole)) < len(train)).astype(np.float32)
    with double_precision():
        found = VIEWS[view].embed(Group(jnp.asarray(whole), jnp.asarray(weights), jnp.asarray(test)))
        return Embedded(np.asarray(found.train)[: len(train)], np.asarray(found.test))


def super_class(label=2, separation=3.0):
    x, y, z, w = arrays_of(pairs(separation))
    return x[y % 5 == label], z[w % 5 == label]


@pytest.mark.parametrize("padding", [0, 7])
def test_normalised_is_centred_and_of_length_1(padding):
    x, z = super_class()
    found = embed("normalised", x, z, padding)
    np.testing.assert_allclose(np.linalg.norm(found.train, axis=1), 1, rtol=1e-5)
    rest = z - x.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(found.test, rest / np.linalg.norm(rest, axis=1)[:, None], atol=1e-4)


@pytest.mark.parametrize("padding", [0, 7])
def test_residual_pca_is_white(padding):
    found = embed("residual_pca", *super_class(), padding).train.astype(np.float64)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(8), atol=1e-3)


def test_a_view_is_one_function_and_one_line_of_the_table(monkeypatch):
    def doubled(group):
        return Embedded(2 * group.train, 2 * group.test)

    monkeypatch.setitem(VIEWS, "doubled", View(ViewInfo(label="twice as large"), doubled))
    found = evaluate(pairs(4.0), label_map=MOD5, views=("raw", "doubled"), bootstrap=0)
    raw, other = found.clusters["raw"], found.clusters["doubled"]
    np.testing.assert_array_equal(other.recovered_train, raw.recovered_train)
    assert found.views["doubled"].label == "twice as large"
    (row,) = found.rows
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
    for own in (x[owner == group] for group in (0, 1)):
        unit, white = embed("normalised", own), embed("residual_pca", own)
        rest = own.astype(np.float64) - own.mean(axis=0, dtype=np.float64)
        lengths = np.linalg.norm(rest, axis=1, keepdims=True)
        np.testing.assert_allclose(unit.train, rest / lengths, atol=2e-3)
        left, _, _ = np.linalg.svd(rest, full_matrices=False)
        left = left[:, :8] * len(rest) ** 0.5
        found = white.train.astype(np.float64)
        np.testing.assert_allclose(found @ found.T, left @ left.T, atol=5e-2)
        np.testing.assert_array_equal(unit.test, unit.train)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.filterwarnings("ignore")
def test_tsne_of_few_features(d):
    rng = np.random.default_rng(0)
    y = np.arange(60, dtype=np.int32) % 3
    x = (1e-7 * (5 * y[:, None] + rng.normal(size=(60, d)))).astype(np.float32)
    found = VIEWS["tsne"].plane(x)
    means = np.stack([found[y == c].mean(axis=0) for c in range(3)])
    nearest = ((found[:, None] - means) ** 2).sum(-1).argmin(axis=1)
    assert (nearest == y).mean() > 0.9


def test_an_example_at_the_mean_has_no_direction():
    x = np.array([[1.0, 3.0], [3.0, 5.0], [2.0, 4.0]], np.float32)
    np.testing.assert_allclose(np.linalg.norm(embed("normalised", x).train, axis=1), [1, 1, 0])
