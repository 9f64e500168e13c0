# SPDX-License-Identifier: Apache-2.0
"""What is undefined is None with a reason, in the measurement and in a line of its own, and never 0: collapsed."""

import numpy as np
import pytest

from ncjax.collapse.metrics import METRICS
from ncjax.evaluation.evaluator import evaluate
from ncjax.features.feature_set import FeatureSet
from tests.evaluation.arrays import only

RNG = np.random.default_rng(0)
Y = np.arange(80) % 4
X = 3 * RNG.normal(size=(4, 6))[Y] + RNG.normal(size=(80, 6))
BETWEEN = ("nc1", "nc1_ratio", "separation", "cdnv", "vci", "nc2_equinorm", "nc2_equiangularity", "nc2_angle",
           "nc2_etf", "effective_rank_means")  # fmt: skip
INSIDE = ("nc1", "nc1_ratio", "separation", "cdnv", "vci", "effective_rank_within")
DUALITY = ("nc3", "nc3_etf", "nc3_equinorm")
SIBLINGS = ("silhouette", "silhouette_cosine", "explained_variance", "c1", "c2", "distance_merged_classes")
ONE, NONE, FEW = "fewer than two classes have examples", "no super-class has two classes", "no class has two examples"
MAP, WHOLE, UNKNOWN, SAME = [0, 1, 0, 1], [0] * 4, "undefined", "all features are the same"
CENTRAL = np.array([[1.0], [-1.0], [0.0]])[np.arange(60) % 3] * np.ones((1, 4)) + 0.1 * RNG.choice(
    [-1, 1], (20, 4)
).repeat(3, axis=0)  # the mean of the third class is that of all

CASES = {
    "one class in the test split": ((X, Y, X[Y == 2], Y[Y == 2]), {}, "test", "fine", BETWEEN, ONE),
    "one class for a classifier": (
        (X, Y, X[Y == 2], Y[Y == 2]), {"classifier": (np.ones((4, 6)), None)}, "test", "fine", DUALITY, ONE),
    "one class in the training split": ((X[Y == 1], Y[Y == 1]), {}, "train", "fine", BETWEEN, ONE),
    "one super-class": ((X, Y), {"label_map": WHOLE}, "train", "coarse", BETWEEN, ONE),
    "no other super-class": ((X, Y), {"label_map": WHOLE}, "train", "within", ("distance_other_classes",), UNKNOWN),
    "no siblings": ((X[Y < 2], Y[Y < 2], X, Y), {"label_map": MAP}, "train", "within", SIBLINGS, NONE),
    "one example in all": ((X, Y, X[:1], Y[:1]), {}, "test", "fine", BETWEEN, SAME),
    "one example a class": ((X, Y, X[:4], Y[:4]), {}, "test", "fine", INSIDE, FEW),
    "one example a class, distances": (
        (X, Y, X[:4], Y[:4]), {"label_map": MAP}, "test", "within", ("distance_same_class",), FEW),
    "constant": ((0 * X + 5.1, Y), {}, "train", "fine", (*BETWEEN, "effective_rank_within"), SAME),
    "constant, of all": ((0 * X - 1e9, Y), {}, "train", "all", ("effective_rank",), SAME),
    "constant, inside": ((0 * X, Y), {"label_map": MAP}, "train", "within", (*SIBLINGS, "c3", "c4"), SAME),
    "means at one point": ((np.tile(X[:20], (4, 1)), np.repeat(np.arange(4), 20)), {}, "train", "fine",
                           ("nc1", "nc1_ratio", "separation", "cdnv"), "undefined"),
    "no variance inside": ((np.eye(4)[Y], Y), {}, "train", "fine", ("effective_rank_within",), "undefined"),
    "a mean at the mean of all": ((CENTRAL, np.arange(60) % 3), {}, "train", "fine",
                                  ("nc2_equiangularity", "nc2_angle"), "undefined"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_undefined_is_none_with_its_reason(name):
    arrays, options, split, level, metrics, reason = CASES[name]
    needed = [name for name, one in METRICS.items() if set(one.outputs) & set(metrics)]
    row = only(evaluate(FeatureSet.from_arrays(*arrays), views=(), metrics=needed, bootstrap=0, **options))
    for metric in metrics:
        found = row.find(metric, split=split, level=level)
        assert found.value is None, (metric, found.value)
        assert reason in found.reason, metric
    lines = [line for line in row.left_out if line.startswith(split) and reason in line]
    assert all(any(metric in line or "every measure" in line for line in lines) for metric in metrics), row.left_out


def test_what_has_collapsed_is_0_and_not_undefined():
    row = only(evaluate(FeatureSet.from_arrays(np.eye(4)[Y], Y), label_map=MAP, views=(), bootstrap=0))
    for metric in ("nc1", "nc1_ratio", "separation", "cdnv", "vci", "nc2_equinorm", "nc2_angle", "nc2_etf"):
        assert row.value(metric, split="train") == pytest.approx(0, abs=2e-6), metric
    assert row.value("silhouette", split="train", level="within") == pytest.approx(1)
    assert row.value("explained_variance", split="train", level="within") == pytest.approx(1)


def test_a_super_class_of_one_class_explains_nothing():
    row = only(evaluate(FeatureSet.from_arrays(X, Y), label_map=[0, 0, 0, 1], views=(), bootstrap=0))
    first, second = (row.value("explained_by_super_class", split="train", level="within", index=i) for i in (0, 1))
    assert first > 0.5
    assert second is None
    assert not any("explained" in line for line in row.left_out)  # it has a value where it is defined
