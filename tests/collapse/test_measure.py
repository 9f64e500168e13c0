# SPDX-License-Identifier: Apache-2.0
"""Every metric of `measure` against float64 NumPy, and what it says of those without a value."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ncjax.collapse.measure
from ncjax.collapse import programs
from ncjax.collapse.measure import Problem, measure, measure_networks
from ncjax.collapse.metrics import METRICS, metric_infos
from ncjax.collapse.plan import MOST_FEATURES
from ncjax.collapse.reading import Classifier, Labelled
from ncjax.collapse.record import Metric
from ncjax.collapse.statistics import ClassStatistics
from ncjax.errors import UserError
from ncjax.results import MetricInfo
from tests.collapse import oracle
from tests.collapse.inputs import SUPER, D, N, assert_same_values, some, values


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 1.0, 10.0]), st.sampled_from([0.0, 100.0]))
def test_the_whole_table_equals_float64(seed, spread, offset):
    train, test = some(seed, spread, offset), some(seed + 1, spread, offset)
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(4, D)).astype(np.float32), 9 * rng.normal(size=4).astype(np.float32)
    measured = measure(Labelled(*train), Labelled(*test), SUPER, classifier=Classifier(weights, bias))
    coarse_means = [train[0][np.asarray(SUPER)[train[1]] == c].mean(0, dtype=np.float64) for c in range(4)]
    for name, (x, fine) in {"train": train, "test": test}.items():
        found, coarse = values(measured, name), np.asarray(SUPER)[fine]
        wanted = {
            "fine": oracle.level(x, fine),
            "coarse": oracle.level(x, coarse) | oracle.duality(x, coarse, weights),
            "within": oracle.within(x, fine, SUPER),
            "all": {"effective_rank": oracle.effective_rank(np.linalg.eigvalsh(np.cov(x.T.astype(float))))},
        }
        for level, metrics in wanted.items():
            for metric, value in metrics.items():
                close = {"rtol": 2e-3, "atol": 2e-4}
                ours = np.asarray(found[level][metric], float)
                np.testing.assert_allclose(ours, value, **close, err_msg=f"{level} {metric}")
        nc4 = oracle.nc4(x, np.stack(coarse_means), weights, bias)
        assert found["coarse"]["nc4"] == pytest.approx(nc4, abs=2.1 / N)
        compared = {metric for metrics in wanted.values() for metric in metrics} | {"nc4"}
        assert compared == set(metric_infos())
    np.testing.assert_allclose(measured.class_distances, oracle.distance_matrix(*train), rtol=1e-3)


def test_reading_in_blocks_changes_nothing(monkeypatch):
    train, classifier = Labelled(*some(7)), Classifier(np.eye(8, D, dtype=np.float32), np.zeros(8, np.float32))
    wanted = values(measure(train, None, SUPER, classifier=classifier))
    monkeypatch.setattr("ncjax.collapse.reading.BLOCK_BYTES", 4 * D * 70)
    assert_same_values(values(measure(train, None, SUPER, classifier=classifier)), wanted)


def test_weight_2_is_the_example_twice_and_weight_0_leaves_it_out():
    x, y = some(9)
    weights = (np.arange(N) % 3).astype(np.float32)
    twice = np.repeat(np.arange(N), weights.astype(int))
    bad = np.where(weights[:, None] > 0, x, np.nan)
    classifier = Classifier(np.eye(8, D, dtype=np.float32), np.zeros(8, np.float32))
    found = measure(Labelled(bad, y, weights), None, SUPER, classifier=classifier)
    wanted = measure(Labelled(x[twice], y[twice]), None, SUPER, classifier=classifier)
    assert_same_values(values(found), values(wanted))


def test_programs_are_compiled_once_for_splits_and_calls():
    """Moments, levels, silhouettes, NC4, c4, merged classes, metrics inside super-classes and of the classifier."""
    compiled = []

    def listen(event, secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    x, y = some(9, n=250, d=D - 3)  # sizes of no other test
    classifier = Classifier(np.ones((4, D - 3), np.float32), np.zeros(4, np.float32))
    measure(Labelled(x, y), Labelled(x[:200], y[:200]), SUPER, classifier=classifier)
    assert 0 < len(compiled) <= 20  # 43 before the table of metrics; some are small ones of jnp.asarray and such
    count = len(compiled)
    measure(Labelled(x + 1, y), Labelled(x[:190], y[:190]), SUPER, classifier=classifier)
    assert len(compiled) == count


@pytest.mark.slow
def test_networks_and_resamples_together_are_those_one_by_one(monkeypatch):
    """In one program, in a program for each network, and a block at a time."""
    problems = []
    for seed in (5, 6, 7):
        x, y = some(seed)
        weights = np.random.default_rng(seed).normal(size=(3, D)).astype(np.float32)
        owner = SUPER if seed < 7 else SUPER[::-1]
        problems.append(
            Problem(
                train=Labelled(x[:200], y[:200]),
                test=Labelled(x[200:], y[200:]),
                super_class=owner,
                classifier=Classifier(weights, np.zeros(3, np.float32)),
                resamples=2,
            )
        )
    together = measure_networks(problems)
    alone = [measure_networks([problem])[0] for problem in problems]
    monkeypatch.setattr(ncjax.collapse.measure, "RESIDENT_BYTES", 0)
    read = [measure_networks([problem])[0] for problem in problems]
    for others in (alone, read):
        for found, wanted in zip(together, others, strict=True):
            assert found.left_out == wanted.left_out
            np.testing.assert_allclose(found.class_distances, wanted.class_distances, rtol=1e-5)
            for one, two in zip(found.measurements, wanted.measurements, strict=True):
                assert dataclasses.replace(one, value=None, std=None) == dataclasses.replace(two, value=None, std=None)
                assert (one.value is None) == (two.value is None)
                if one.value is not None:
                    assert one.value == pytest.approx(two.value, rel=1e-4, abs=1e-5), one
                    assert one.std == pytest.approx(two.std, rel=1e-3, abs=1e-5), one


@pytest.mark.parametrize(("attribute", "counts"), [("read_networks", [2, 2]), ("evaluate_networks", [1, 1])])
def test_programs_do_not_depend_on_the_number_of_networks(monkeypatch, attribute, counts):
    """One call reads a split, one evaluates: of one network and of six."""
    called, program = [], getattr(programs, attribute)
    monkeypatch.setattr(programs, attribute, lambda *args: called.append(args) or program(*args))
    x, y = some(4)
    problem = Problem(train=Labelled(x[:150], y[:150]), test=Labelled(x[150:], y[150:]), super_class=SUPER)
    for number, count in zip((1, 6), counts, strict=True):
        called.clear()
        measure_networks([problem] * number, metrics=("cdnv", "c4"))
        assert len(called) == count


# ------------------------------------------------------------------ selection, and metrics of one's own


def test_only_the_metrics_of_these_names_are_measured():
    x, y = some(4)
    every = measure(Labelled(x, y), None, SUPER)
    names = ("cdnv", "c2", "c4", "effective_rank")
    found = measure(Labelled(x, y), None, SUPER, metrics=names)
    assert {one.metric for one in found.measurements} == set(names)
    wanted = {level: {k: v for k, v in metrics.items() if k in names} for level, metrics in values(every).items()}
    assert_same_values(values(found), wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.class_distances, every.class_distances)
    assert not any("nc3" in line for line in found.left_out)
    with pytest.raises(UserError, match="metric is 'nc9', but must be one of nc1"):
        measure(Labelled(x, y), None, SUPER, metrics=("nc9",))


def largest_variance(statistics: ClassStatistics) -> jax.Array:
    return statistics.variances.max()


def spread_of_super_classes(fine: ClassStatistics, coarse: ClassStatistics, super_class: jax.Array) -> jax.Array:
    return coarse.variances - fine.variances.min()


@pytest.mark.parametrize(
    ("function", "inputs", "scope", "levels"),
    [
        (largest_variance, "statistics", "level", ["coarse", "fine"]),
        (largest_variance, "all", "all", ["all"]),
        (spread_of_super_classes, "super_classes", "within", ["within"] * 4),
    ],
)
def test_a_metric_is_one_line_of_the_table(monkeypatch, function, inputs, scope, levels):
    info = MetricInfo(label="a toy", scope=scope)
    monkeypatch.setitem(METRICS, "toy", Metric(function=function, inputs=inputs, outputs={"toy": info}))
    assert metric_infos()["toy"] is info
    x, y = some(4)
    for metrics in (None, ("toy",)):
        found = [
            one for one in measure(Labelled(x, y), None, SUPER, metrics=metrics).measurements if one.metric == "toy"
        ]
        assert [one.level for one in found] == levels
        assert all(one.value > 0 for one in found)
    if inputs == "all":
        largest = max(((x[y == c] - x[y == c].mean(0)) ** 2).sum(1).mean() for c in range(8))
        assert found[0].value == pytest.approx(largest, rel=1e-4)


# ------------------------------------------------------------------ what has no value, and why


def reasons(measured, metric):
    return {one.level: one.reason for one in measured.measurements if one.metric == metric and one.value is None}


def test_table_says_what_it_leaves_out():
    x, y = some(4)
    y = np.where(y == 6, 2, y).astype(np.int32)
    y[np.flatnonzero(y == 3)[1:]] = 0
    measured = measure(Labelled(x, y), None, SUPER, classifier=Classifier(np.ones((3, D)), np.zeros(3)))
    assert measured.left_out == (
        "test: there is no test split",
        "nc3 and nc4: the classifier has 3 classes, not 4 coarse or 8 fine",
        "train: no example of class 6; measured over the other classes",
        "train: one example of class 3: it has no spread, and a silhouette of 0",
    )
    assert values(measured)["fine"]["nc1"] == pytest.approx(oracle.level(x, y)["nc1"], rel=1e-3)
    assert reasons(measured, "nc3") == dict.fromkeys(
        ("coarse", "fine"), "the classifier has 3 classes, not 4 coarse or 8 fine"
    )
    assert {one.split for one in measured.measurements} == {"train"}


def test_without_a_classifier_nc3_and_nc4_have_a_reason():
    measured = measure(Labelled(*some(4)), None, SUPER)
    assert measured.left_out[-1] == "nc3 and nc4: there are no classifier weights"
    for metric in ("nc3", "nc3_etf", "nc3_equinorm", "nc4"):
        assert reasons(measured, metric) == dict.fromkeys(("coarse", "fine"), "there are no classifier weights")


def test_the_level_of_a_classifier_is_that_of_its_classes_or_the_one_named():
    train, weights = Labelled(*some(4)), np.random.default_rng(0).normal(size=(8, D)).astype(np.float32)
    classifier = Classifier(weights, np.zeros(8, np.float32))
    found = measure(train, None, SUPER, classifier=classifier)
    assert set(reasons(found, "nc4")) == {"coarse"}
    assert found.left_out[-1] == "nc3 and nc4, coarse: the classifier has 8 classes"
    named = measure(train, None, SUPER, classifier=classifier, classifier_level="fine")
    assert_same_values(values(named), values(found), rtol=0, atol=0)
    wrong = measure(train, None, SUPER, classifier=classifier, classifier_level="coarse")
    assert wrong.left_out[-1] == "nc3 and nc4: the classifier has 8 classes, not 4 coarse"


def test_coarse_classes_that_are_the_fine_ones_in_another_order():
    x, y = some(4)
    order = (3, 1, 0, 2, 7, 6, 5, 4)
    weights, bias = np.random.default_rng(0).normal(size=(8, D)).astype(np.float32), jnp.arange(8.0)
    coarse = Classifier(weights, bias)
    fine = Classifier(weights[np.array(order)], bias[np.array(order)])
    found = measure(Labelled(x, y), None, order, classifier=coarse, classifier_level="coarse")
    wanted = measure(Labelled(x, y), None, order, classifier=fine)
    assert found.left_out == wanted.left_out
    assert_same_values(values(found), values(wanted), rtol=1e-6)
    assert values(found)["fine"]["nc4"] is not None


def test_without_merged_classes_the_fine_level_is_measured_alone():
    x, y = some(4)
    found = measure(Labelled(x, y), None, tuple(range(8)))
    assert set(values(found)) == {"fine", "all"}
    assert "coarse and within: no label map that merges classes" in found.left_out


def test_features_that_are_all_the_same_have_no_value():
    found = measure(Labelled(np.ones((N, D), np.float32), some(0)[1]), None, SUPER)
    assert {one.value for one in found.measurements} == {None}
    assert set(reasons(found, "c4").values()) == {"all features are the same"}
    assert found.left_out[-1] == "train: every measure: all features are the same"


def test_of_very_wide_features_no_eigenvalues_are_computed():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, MOST_FEATURES + 1)).astype(np.float32)
    found = measure(
        Labelled(x, np.arange(40, dtype=np.int32) % 4), None, (0, 0, 1, 1), metrics=("vci", "effective_rank")
    )
    reason = f"more than {MOST_FEATURES} features ({MOST_FEATURES + 1})"
    assert reasons(found, "vci") == {"coarse": reason, "fine": reason}
    assert reasons(found, "effective_rank") == {"all": reason}
    assert found.left_out[-1] == f"vci and effective_rank: {reason}"


def test_what_is_not_finite_is_none_with_a_reason():
    x, y = some(4)
    found = measure(Labelled(x, np.where(y == 0, 0, 1).astype(np.int32)), None, (0, 0))
    assert reasons(found, "nc1_ratio")["coarse"] == "fewer than two classes have examples"
    assert values(found)["fine"]["nc1_ratio"] > 0
