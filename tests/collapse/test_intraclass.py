# SPDX-License-Identifier: Apache-2.0
"""Scores of intraclass clustering; test_measure.py compares them with float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.collapse import merge_classes
from ncjax.collapse.intraclass import cosine_deviation, neuron_scores
from ncjax.collapse.reading import Labelled, subsample
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


def in_turns(period, count=4000):
    """Rows of one super-class whose hidden attribute changes in turns."""
    rng = np.random.default_rng(period)
    hidden = np.arange(count) % period
    x = np.where(hidden == 0, 6.0, 0.2)[:, None] * rng.normal(size=8) + rng.normal(size=(count, 8)) + 1
    return x.astype(np.float32), np.zeros(count, np.int32)


@pytest.mark.parametrize("order", [2, 3, 4, 5, 7, 10, 20, 40, "sorted", "sorted down"])
def test_c4_does_not_depend_on_the_order_of_the_rows(monkeypatch, order):
    """Of 4,000 rows 400 are drawn of each super-class; evenly spaced ones would be of one kind."""
    monkeypatch.setattr("ncjax.collapse.reading.SUBSAMPLE", 400)
    x, owner = in_turns(order if isinstance(order, int) else 2)
    if isinstance(order, str):
        x = x[np.argsort(x[:, 0] * (1 if order == "sorted" else -1))]
    rest = np.random.default_rng(0).normal(size=(4000, 8)).astype(np.float32)
    x, owner = np.concatenate([x, rest]), np.concatenate([owner, owner + 1])
    sample = subsample(Labelled(x, owner), owner.astype(np.int64), 2)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    wanted = np.mean([(unit[owner == c] @ unit[owner == c].T).std() for c in (0, 1)]) / (unit @ unit.T).std()
    assert float(cosine_deviation(sample, jnp.array([4000.0, 4000.0]))) == pytest.approx(wanted, rel=0.08)
