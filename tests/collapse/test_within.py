# SPDX-License-Identifier: Apache-2.0
"""Fine classes inside super-classes; test_measure.py compares every metric with float64 and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.collapse import merge_classes
from ncjax.collapse.within import explained_variance, siblings, summarise_distances
from tests.collapse import oracle
from tests.collapse.inputs import SUPER, some, statistics


def test_distances_and_explained_variance_equal_float64():
    x, y = some(6)
    fine, owner = statistics(x, y, 8), jnp.array(SUPER)
    coarse = merge_classes(fine, owner, 4)
    wanted = oracle.within(x, y, SUPER)
    for result in (summarise_distances(fine, coarse, owner), explained_variance(fine, coarse, owner)):
        for name, value in result._asdict().items():
            np.testing.assert_allclose(value, wanted[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_labels_that_separate_everything_explain_everything():
    y = np.arange(40, dtype=np.int32) % 4
    x = np.eye(4, dtype=np.float32)[y]
    fine, owner = statistics(x, y, 4), jnp.array([0, 0, 1, 1])
    found = explained_variance(fine, merge_classes(fine, owner, 2), owner)
    assert float(found.explained_variance) == pytest.approx(1)
    assert found.explained_by_super_class.tolist() == pytest.approx([1, 1])


def test_only_different_classes_with_examples_are_siblings():
    found = siblings(jnp.array([3.0, 2.0, 0.0, 1.0]), jnp.array([0, 0, 0, 1]))
    assert np.argwhere(found).tolist() == [[0, 1], [1, 0]]
