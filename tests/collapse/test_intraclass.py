# SPDX-License-Identifier: Apache-2.0
"""Scores of intraclass clustering; test_measure.py compares them with float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.collapse import merge_classes
from ncjax.collapse.intraclass import neuron_scores
from tests.collapse import oracle
from tests.collapse.inputs import SUPER, some, statistics


def test_neurons_that_are_silent_in_a_super_class_select_no_class():
    x, y = some(5)
    silent = 1 + 0.37 * np.asarray(SUPER)[y][:, None] * np.ones((1, 40))
    x = np.hstack([x, silent.astype(np.float32)])
    fine, owner = statistics(x, y, 8), jnp.array(SUPER)
    found = neuron_scores(fine, merge_classes(fine, owner, 4), owner)
    wanted = oracle.intraclass(x.astype(np.float64), y, np.asarray(SUPER)[y])
    assert float(found.c1) == pytest.approx(wanted["c1"], rel=1e-3)
    assert float(found.c3) == pytest.approx(wanted["c3"], rel=1e-3)
