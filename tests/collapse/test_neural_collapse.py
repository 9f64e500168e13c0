# SPDX-License-Identifier: Apache-2.0
"""NC1 to NC4 against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncjax.collapse import cdnv, kernel_nc1, merge_classes, nc1, nc2, nc3, nc4, vci
from tests.collapse import oracle
from tests.collapse.inputs import some, statistics


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 10.0]))
def test_kernel_form_is_that_of_the_features(seed, spread):
    x, y = some(seed, spread, d=60, classes=5)
    x = x.astype(np.float64) - 1
    found = kernel_nc1(jnp.asarray((x @ x.T).astype(np.float32)), jnp.asarray(y), 5)
    wanted = oracle.level(x, y)
    for name in ("nc1", "nc1_ratio", "separation"):
        assert float(getattr(found, name)) == pytest.approx(wanted[name], rel=2e-2)


def test_exact_simplex_frame_gives_0_where_0_is_due():
    frame = np.eye(5, dtype=np.float32) - 1 / 5
    labels = np.arange(50, dtype=np.int32) % 5
    features = 7 * frame[labels] + 10
    found = statistics(features, labels, 5)
    collapse, shape = nc1(found), nc2(found)
    duality = nc3(found, jnp.asarray(3 * frame))
    zeros = [*collapse, cdnv(found), vci(found), *shape[:4], *duality]
    np.testing.assert_allclose(np.array(zeros), 0, atol=2e-6)
    assert 0 <= float(collapse.nc1) < 1e-9
    assert 0 <= float(collapse.nc1_ratio) < 1e-9
    np.testing.assert_allclose(shape.cosine_spectrum, [1.25] * 4 + [0], atol=1e-5)
    assert float(shape.effective_rank_means) == pytest.approx(4, rel=1e-5)
    assert float(nc4(jnp.asarray(features), found, jnp.asarray(frame), jnp.zeros(5))) == 0
    assert float(nc4(jnp.asarray(features), found, jnp.asarray(frame), 20.0 * jnp.arange(5))) == pytest.approx(0.8)


def test_isotropic_clusters_have_the_closed_forms():
    rng, classes, dimension, sigma = np.random.default_rng(0), 3, 6, 0.5
    labels = np.arange(60_000, dtype=np.int32) % classes
    features = (np.eye(dimension)[labels] + sigma * rng.normal(size=(60_000, dimension))).astype(np.float32)
    found = nc1(statistics(features, labels, classes))
    # Every non-zero eigenvalue of S_B is 1 / K and S_W is sigma^2 I.
    assert float(found.nc1) == pytest.approx((classes - 1) * sigma**2, rel=0.03)
    assert float(found.separation) == pytest.approx(classes * (classes - 1) * sigma**2, rel=0.03)
    assert float(found.nc1_ratio) == pytest.approx(dimension * sigma**2 * classes / (classes - 1), rel=0.03)


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
