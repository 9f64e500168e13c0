# SPDX-License-Identifier: Apache-2.0
"""Measures of collapse against float64 NumPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from ncjax.collapse.neural_collapse import (
    cdnv,
    class_distances,
    class_statistics,
    geometry,
    kernel_nc1,
    nc1,
    self_duality,
    spectrum,
)
from ncjax.collapse.measure import Classifier, Labelled, gather_moments
from ncjax.collapse.statistics import merge, merge_classes, merge_devices
from ncjax.evaluation.old_table import collapse_table
from ncjax.distributed.sharding import shard_map
from tests.collapse import oracle

SUPER = (0, 1, 2, 0, 1, 2, 2, 3)  # sizes 2, 2, 3 and 1
N, D = 240, 40


def statistics(features, labels, classes):
    return class_statistics(jnp.asarray(features), jnp.asarray(labels), classes)


def some(seed, spread=1.0, offset=0.0, n=N, classes=8, d=D):
    """Classes of unequal sizes, features of unequal scales."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) ** 2 % 97 % classes).astype(np.int32)
    scales = np.exp(rng.normal(size=d))
    x = 2 * rng.normal(size=(classes, d))[labels] + spread * rng.normal(size=(n, d))
    return (scales * x + offset).astype(np.float32), labels


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 1.0, 10.0]), st.sampled_from([0.0, 100.0]))
def test_the_whole_table_equals_float64(seed, spread, offset):
    train, test = some(seed, spread, offset), some(seed + 1, spread, offset)
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(4, D)).astype(np.float32), 9 * rng.normal(size=4).astype(np.float32)
    found = collapse_table(Labelled(*train), Labelled(*test), SUPER, Classifier(weights, bias)).values
    coarse_means = [train[0][np.asarray(SUPER)[train[1]] == c].mean(0, dtype=np.float64) for c in range(4)]
    for name, (x, fine) in {"train": train, "test": test}.items():
        coarse = np.asarray(SUPER)[fine]
        wanted = {
            "fine": oracle.level(x, fine),
            "coarse": oracle.level(x, coarse) | oracle.duality(x, coarse, weights),
            "within": oracle.within(x, fine, SUPER),
            "all": {"effective_rank": oracle.effective_rank(np.linalg.eigvalsh(np.cov(x.T.astype(float))))},
        }
        for part, measures in wanted.items():
            for measure, value in measures.items():
                close = {"rtol": 2e-3, "atol": 2e-4}
                np.testing.assert_allclose(found[name][part][measure], value, **close, err_msg=f"{part} {measure}")
        nc4 = oracle.nc4(x, np.stack(coarse_means), weights, bias)
        assert found[name]["coarse"]["nc4"] == pytest.approx(nc4, abs=2.1 / N)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 10.0]))
def test_kernel_form_is_that_of_the_features(seed, spread):
    x, y = some(seed, spread, d=60, classes=5)
    x = x.astype(np.float64) - 1
    found = kernel_nc1(jnp.asarray((x @ x.T).astype(np.float32)), jnp.asarray(y), 5)
    wanted = oracle.level(x, y)
    assert float(found.nc1) == pytest.approx(wanted["nc1"], rel=2e-2)
    assert float(found.nc1_ratio) == pytest.approx(wanted["nc1_ratio"], rel=2e-2)


# ------------------------------------------------------------------ closed forms


def test_exact_simplex_frame_gives_0_where_0_is_due():
    frame = np.eye(5, dtype=np.float32) - 1 / 5
    labels = np.arange(50, dtype=np.int32) % 5
    found = statistics(7 * frame[labels] + 10, labels, 5)
    collapse, shape = nc1(found), geometry(found)
    duality = self_duality(found, jnp.asarray(3 * frame))
    zeros = [*collapse, cdnv(found), spectrum(found).vci, *shape[:4], *duality]
    np.testing.assert_allclose(np.array(zeros), 0, atol=2e-6)
    assert 0 <= float(collapse.nc1) < 1e-9
    assert 0 <= float(collapse.nc1_ratio) < 1e-9
    np.testing.assert_allclose(shape.cosine_spectrum, [1.25] * 4 + [0], atol=1e-5)
    assert float(shape.effective_rank) == pytest.approx(4, rel=1e-5)


def test_isotropic_clusters_have_the_closed_forms():
    rng, classes, dimension, sigma = np.random.default_rng(0), 3, 6, 0.5
    labels = np.arange(60_000, dtype=np.int32) % classes
    features = (np.eye(dimension)[labels] + sigma * rng.normal(size=(60_000, dimension))).astype(np.float32)
    found = statistics(features, labels, classes)
    # Every non-zero eigenvalue of S_B is 1 / K, S_W is sigma^2 I, and |m_i - m_j|^2 = 2.
    assert float(nc1(found).nc1) == pytest.approx((classes - 1) * sigma**2, rel=0.03)
    assert float(nc1(found).nc1_ratio) == pytest.approx(dimension * sigma**2 * classes / (classes - 1), rel=0.03)
    assert float(cdnv(found)) == pytest.approx(2 * dimension * sigma**2 / (2 * 2), rel=0.03)
    assert float(spectrum(found).vci) == pytest.approx(1 / (1 + 1 / classes / sigma**2), rel=0.03)
    assert float(spectrum(found).effective_rank_within) == pytest.approx(dimension, rel=0.01)
    distances = np.full((classes, classes), 2 + 2 * dimension * sigma**2) - 2 * np.eye(classes)
    np.testing.assert_allclose(class_distances(found), distances, rtol=0.03)


def test_linear_map_leaves_vci_as_it_is_and_changes_the_ratio():
    x, y = some(3)
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(D, D)))
    linear = (rotation * np.geomspace(0.2, 4, D)) @ rotation.T
    before, after = statistics(x, y, 8), statistics((x @ linear).astype(np.float32), y, 8)
    assert float(spectrum(after).vci) == pytest.approx(float(spectrum(before).vci), rel=1e-3)
    assert abs(float(nc1(after).nc1_ratio) / float(nc1(before).nc1_ratio) - 1) > 0.1


def test_merging_two_classes_changes_coarse_nc1_as_derived():
    """Classes at 0, 1 (merged, of n each) and at 10 on the other axis; each is a point plus the same spread.

    S_W gains the variance 1/4 of the merged pair on the first axis, for 2/3 of the examples; the fine one
    has no part of it.
    """
    spread = np.array([[0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]], np.float32)
    centres = np.array([[0, 0], [1, 0], [0.5, 10]], np.float32)
    fine = np.repeat(np.arange(3, dtype=np.int32), 4)
    x = centres[fine] + np.tile(spread, (3, 1))
    found = statistics(x, fine, 3)
    coarse = merge_classes(found, jnp.array([0, 0, 1]), 2)
    # Two coarse means 10 apart on the second axis: S_B = 25 there, and NC1 asks for S_W along that axis alone.
    assert float(nc1(coarse).nc1) == pytest.approx(0.005 / 25 / 2, rel=1e-4)
    assert float(nc1(coarse).nc1_ratio) == pytest.approx((0.01 + 0.25 * 2 / 3) / 25, rel=1e-4)
    assert float(nc1(found).nc1_ratio) == pytest.approx(0.01 / (1 / 6 + 200 / 9), rel=1e-4)


def test_more_classes_than_dimensions():
    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.int32) % 10
    collapse = nc1(statistics(rng.normal(size=(200, 3)).astype(np.float32), labels, 10))
    assert np.isfinite(float(collapse.nc1))
    assert float(collapse.nc1) > 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e-6, 1e-3, 1.0]))
def test_nc1_is_never_negative_however_collapsed_the_features_are(seed, spread):
    x, y = some(seed, spread, offset=1000.0, d=5)
    assert float(nc1(statistics(x, y, 8)).nc1) >= 0


# ------------------------------------------------------------------ merging


def assert_same(found, wanted, rtol=1e-5):
    for name in ("counts", "squares", "within"):
        scale = np.abs(np.asarray(getattr(wanted, name))).max()
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=rtol, atol=rtol * scale)
    means = [np.asarray(s.means, np.float64) + np.asarray(s.origin)[None, :] for s in (found, wanted)]
    np.testing.assert_allclose(*means, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_chunks_devices_and_super_classes_merge_into_the_whole(offset):
    x, y = some(5, offset=offset)
    rtol = 1e-5 if offset == 0 else 1e-3
    whole = statistics(x, y, 8)
    parts = [statistics(x[i : i + 60], y[i : i + 60], 8) for i in range(0, N, 60)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    assert_same(merged, whole, rtol)
    assert_same(merge_classes(merged, jnp.array(SUPER), 4), statistics(x, np.asarray(SUPER, np.int32)[y], 4), rtol)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharded = shard_map(
        lambda x, y: merge_devices(class_statistics(x, y, 8), "data"),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
    )
    assert_same(jax.jit(sharded)(x, y), whole, rtol)


def test_moments_stay_exact_far_from_0():
    """Spread 1 at 10^5 from the origin: sums of squares in float32 would lose all of it."""
    x, y = some(1, offset=1e5)
    found = nc1(gather_moments(Labelled(x, y), 8).fine)
    assert float(found.nc1) == pytest.approx(oracle.level(x, y)["nc1"], rel=1e-3)


def test_reading_in_blocks_changes_nothing(monkeypatch):
    train = Labelled(*some(7))
    wanted = collapse_table(train, None, SUPER).values["train"]
    monkeypatch.setattr("ncjax.collapse.measure.BLOCK_BYTES", 4 * D * 70)
    found = collapse_table(train, None, SUPER).values["train"]
    for part, measures in wanted.items():
        for name, value in measures.items():
            if value is not None:
                np.testing.assert_allclose(found[part][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_weight_2_is_the_example_twice_and_weight_0_leaves_it_out():
    x, y = some(9)
    weights = (np.arange(N) % 3).astype(np.float32)
    twice = np.repeat(np.arange(N), weights.astype(int))
    bad = np.where(weights[:, None] > 0, x, np.nan)
    found = collapse_table(Labelled(bad, y, weights), None, SUPER).values["train"]
    wanted = collapse_table(Labelled(x[twice], y[twice]), None, SUPER).values["train"]
    for part, measures in wanted.items():
        for name, value in measures.items():
            if value is not None:
                np.testing.assert_allclose(found[part][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_members_are_measured_at_once():
    x, y = some(2)
    members = jnp.stack([jnp.asarray(x), 2 * jnp.asarray(x) ** 2])
    found = jax.vmap(lambda m: nc1(class_statistics(m, jnp.asarray(y), 8)).nc1)(members)
    assert found.tolist() == pytest.approx([float(nc1(statistics(m, y, 8)).nc1) for m in members], rel=1e-4)


# ------------------------------------------------------------------ what is left out


def test_table_says_what_it_leaves_out():
    x, y = some(4)
    y = np.where(y == 6, 2, y).astype(np.int32)
    y[np.flatnonzero(y == 3)[1:]] = 0
    found = collapse_table(Labelled(x, y), None, SUPER, Classifier(np.ones((3, D)), np.zeros(3)))
    assert found.left_out == (
        "test: there is no test split",
        "nc3 and nc4: the classifier has 3 classes, not 4 coarse or 8 fine",
        "train: no example of class 6; measured over the other classes",
        "train: one example of class 3: it has no spread, and a silhouette of 0",
    )
    assert found.values["train"]["fine"]["nc1"] == pytest.approx(oracle.level(x, y)["nc1"], rel=1e-3)
    assert found.values["train"]["coarse"]["nc3"] is None
    assert set(found.values) == {"train"}


def test_without_merged_classes_the_fine_level_is_measured_alone():
    x, y = some(4)
    found = collapse_table(Labelled(x, y), None, tuple(range(8)))
    assert set(found.values["train"]) == {"fine", "all"}
    assert "coarse and within: no label map that merges classes" in found.left_out


def test_features_that_are_all_the_same_have_no_measures():
    found = collapse_table(Labelled(np.ones((N, D), np.float32), some(0)[1]), None, SUPER)
    assert found.values == {}
    assert found.left_out[-1] == "train: every measure: all features are the same"


def test_neurons_that_are_silent_in_a_super_class_select_no_class():
    x, y = some(5)
    silent = 1 + 0.37 * np.asarray(SUPER)[y][:, None] * np.ones((1, 40))
    x = np.hstack([x, silent.astype(np.float32)])
    found = collapse_table(Labelled(x, y), None, SUPER).values["train"]["within"]["c1"]
    assert found == pytest.approx(oracle.intraclass(x.astype(np.float64), y, np.asarray(SUPER)[y])["c1"], rel=1e-3)
