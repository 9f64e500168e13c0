# SPDX-License-Identifier: Apache-2.0
"""CDNV, VCI, effective ranks and class distances against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.collapse import cdnv, class_distances, effective_rank, nc1, vci
from ncjax.collapse.variability import within_class_spectrum
from tests.collapse.inputs import D, some, statistics


def test_isotropic_clusters_have_the_closed_forms():
    rng, classes, dimension, sigma = np.random.default_rng(0), 3, 6, 0.5
    labels = np.arange(60_000, dtype=np.int32) % classes
    features = (np.eye(dimension)[labels] + sigma * rng.normal(size=(60_000, dimension))).astype(np.float32)
    found = statistics(features, labels, classes)
    # Every non-zero eigenvalue of S_B is 1 / K, S_W is sigma^2 I, and |m_i - m_j|^2 = 2.
    assert float(cdnv(found)) == pytest.approx(2 * dimension * sigma**2 / (2 * 2), rel=0.03)
    assert float(vci(found)) == pytest.approx(1 / (1 + 1 / classes / sigma**2), rel=0.03)
    assert float(within_class_spectrum(found).effective_rank_within) == pytest.approx(dimension, rel=0.01)
    distances = np.full((classes, classes), 2 + 2 * dimension * sigma**2) - 2 * np.eye(classes)
    np.testing.assert_allclose(class_distances(found), distances, rtol=0.03)


def test_linear_map_leaves_vci_as_it_is_and_changes_the_ratio():
    x, y = some(3)
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(D, D)))
    linear = (rotation * np.geomspace(0.2, 4, D)) @ rotation.T
    before, after = statistics(x, y, 8), statistics((x @ linear).astype(np.float32), y, 8)
    assert float(vci(after)) == pytest.approx(float(vci(before)), rel=1e-3)
    assert abs(float(nc1(after).nc1_ratio) / float(nc1(before).nc1_ratio) - 1) > 0.1


@pytest.mark.parametrize(("eigenvalues", "wanted"), [([2.0, 2.0, 2.0, 2.0], 4), ([5.0, 0.0, -1e-9], 1)])
def test_effective_rank_of_equal_eigenvalues_is_their_number(eigenvalues, wanted):
    assert float(effective_rank(jnp.array(eigenvalues))) == pytest.approx(wanted, rel=1e-6)
