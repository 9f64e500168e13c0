# SPDX-License-Identifier: Apache-2.0
"""Flax modules as pure functions compute what Flax computes, and their dropout is a function of the key."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ncjax.errors import UserError
from ncjax.models import Variables, from_linen, from_nnx
from tests.own import LinenNet, Net

SHAPE = (6, 5, 1)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(8, *SHAPE)), jnp.float32)
NETWORKS = {"nnx": from_nnx(Net), "linen": from_linen(LinenNet(5))}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def started(network):
    return network.init(jax.random.key(0), SHAPE, 5)


def passed(network, variables, key, *, train=True):
    return jax.jit(partial(network.apply, train=train))(variables, IMAGES, key=jax.random.key(key))


def test_dropout_is_a_function_of_the_key(network):
    variables = started(network)
    (first, _), (again, _), (other, _) = (passed(network, variables, key) for key in (1, 1, 2))
    np.testing.assert_array_equal(first["logits"], again["logits"])
    assert np.abs(first["logits"] - other["logits"]).max() > 1e-3


def test_eval_mode_draws_nothing_and_changes_nothing(network):
    variables = started(network)
    (first, after), (other, _) = (passed(network, variables, key, train=False) for key in (1, 2))
    np.testing.assert_array_equal(first["logits"], other["logits"])
    jax.tree.map(np.testing.assert_array_equal, after, variables)


def test_training_mode_moves_the_statistics_alone(network):
    variables = started(network)
    _, after = passed(network, variables, 1)
    jax.tree.map(np.testing.assert_array_equal, after.params, variables.params)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.batch_stats, variables.batch_stats)
    assert jax.tree.leaves(moved) == [True, True]


def test_state_holds_no_key(network):
    assert {leaf.dtype for leaf in jax.tree.leaves(started(network))} == {jnp.dtype("float32")}


def test_layers_of_dropout_drop_different_units():
    class Drops(nnx.Module):
        def __init__(self, image_shape, num_classes, *, rngs):
            self.one, self.two = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, images, train):
            ones = jnp.ones((len(images), 40))
            return {"logits": self.one(ones), "features": self.two(ones)}

    outputs, _ = passed(from_nnx(Drops), from_nnx(Drops).init(jax.random.key(0), SHAPE, 40), 1)
    same = (np.asarray(outputs["logits"]) == np.asarray(outputs["features"])).mean()
    assert 0.35 < same < 0.65


def test_nnx_module_computes_what_it_computes_alone():
    model = Net(SHAPE, 5, rngs=nnx.Rngs(3))
    graph_free = Variables(
        nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    )
    network = from_nnx(Net)
    variables = Variables(graph_free.params, graph_free.batch_stats, started(network).graph)
    found, _ = passed(network, variables, 1, train=False)
    np.testing.assert_allclose(found["logits"], model(IMAGES, train=False)["logits"], atol=1e-5)
    _, after = passed(network, variables, 1)
    model(IMAGES, train=True)
    expected = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), after.batch_stats, expected)


def test_linen_module_computes_what_it_computes_alone():
    network, module = NETWORKS["linen"], LinenNet(5)
    variables = started(network)
    whole = {"params": variables.params, **variables.batch_stats}
    found, after = passed(network, variables, 1)
    expected, moved = module.apply(
        whole, IMAGES, train=True, rngs={"params": jax.random.key(1)}, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(found["logits"], expected[0], atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), after.batch_stats, moved)


def test_other_outputs_are_refused_in_one_line():
    class Wrong(Net):
        def __call__(self, images, train):
            return super().__call__(images, train)["logits"]

    with pytest.raises(UserError, match=r"^network .*Wrong returns .*, but must return \(logits, features\) or a dict"):
        passed(from_nnx(Wrong), from_nnx(Wrong).init(jax.random.key(0), SHAPE, 5), 0)
