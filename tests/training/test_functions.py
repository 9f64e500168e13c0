# SPDX-License-Identifier: Apache-2.0
"""Which functions a run computes with, and what config.json calls them."""

from functools import partial

import pytest

from ncjax.config import Config, LossConfig, ModelConfig, OptimConfig
from ncjax.models import from_nnx
from ncjax.training.functions import NO_OWN, OwnFunctions, find_functions, name_functions
from tests.own import Net

NAMED = Config(model=ModelConfig(name="mlp"), loss=LossConfig(label_smoothing=0.1), optim=OptimConfig(name="adamw"))


def focal(logits, targets, class_mask):
    return logits.sum(axis=1)


def test_the_same_config_gives_the_same_functions():
    """So that what is compiled for one is used for the other."""
    again = Config(model=ModelConfig(name="mlp"), loss=LossConfig(label_smoothing=0.1), optim=OptimConfig(name="adamw"))
    assert find_functions(NAMED, NO_OWN) == find_functions(again, NO_OWN)
    assert find_functions(NAMED, NO_OWN) != find_functions(Config(), NO_OWN)
    assert hash(find_functions(NAMED, NO_OWN)) == hash(find_functions(again, NO_OWN))


def test_functions_of_ones_own_stand_in_for_names():
    own = OwnFunctions(network=from_nnx(Net), loss=focal)
    found = find_functions(NAMED, own)
    assert (found.network, found.loss) == (own.network, focal)
    assert found.optimizer == find_functions(NAMED, NO_OWN).optimizer


@pytest.mark.parametrize(
    ("own", "changed"),
    [
        (NO_OWN, ("mlp", "cross_entropy", "adamw", "step", "")),
        (OwnFunctions(network=from_nnx(Net)), ("own:Net", "cross_entropy", "adamw", "step", "")),
        (OwnFunctions(network=from_nnx(Net, name="mine")), ("own:mine", "cross_entropy", "adamw", "step", "")),
        (OwnFunctions(loss=partial(focal)), ("mlp", "own:focal", "adamw", "step", "")),
        (OwnFunctions(optimizer=focal, schedule=focal), ("mlp", "cross_entropy", "own:focal", "own:focal", "")),
        (OwnFunctions(augment=focal), ("mlp", "cross_entropy", "adamw", "step", "own:focal")),
    ],
)
def test_the_config_says_which_functions_were_not_of_ncjax(own, changed):
    named = name_functions(NAMED, own)
    optim = named.optim
    assert (named.model.name, named.loss.name, optim.name, optim.schedule, named.data.augment) == changed
    assert name_functions(named, own) == named
