# SPDX-License-Identifier: Apache-2.0
"""Losses are those of PyTorch and of NumPy over the classes that a member has."""

import doctest

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ncjax.config import LossConfig
from ncjax.errors import UserError
from ncjax.training import losses
from ncjax.training.losses import LOSSES, find_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(9, 7)).astype(np.float32)
TARGETS = RNG.integers(0, 5, 9).astype(np.int32)
MASK = np.arange(7) < 5


def ours(config):
    return np.asarray(find_loss(config)(jnp.asarray(LOGITS), jnp.asarray(TARGETS), jnp.asarray(MASK)))


def test_examples_run():
    assert doctest.testmod(losses, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_is_that_of_pytorch(smoothing):
    logits, targets = torch.from_numpy(LOGITS[:, :5]), torch.from_numpy(TARGETS).long()
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    np.testing.assert_allclose(ours(LossConfig(label_smoothing=smoothing)), expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize(("weight", "value"), [(1.0, 1.0), (15.0, 30.0)])
def test_squared_error_is_that_of_the_formula(weight, value):
    rows = np.arange(9)
    error = LOGITS[:, :5].astype(np.float64) ** 2
    error[rows, TARGETS] = weight * (LOGITS[rows, TARGETS].astype(np.float64) - value) ** 2
    config = LossConfig(name="squared_error", true_weight=weight, true_value=value)
    np.testing.assert_allclose(ours(config), error.mean(axis=1), rtol=1e-5)


def test_unknown_loss_is_named_with_those_that_are_known():
    with pytest.raises(UserError, match=r"^loss\.name is 'hinge', but must be one of cross_entropy, squared_error$"):
        find_loss(LossConfig(name="hinge"))
    assert list(LOSSES) == ["cross_entropy", "squared_error"]
