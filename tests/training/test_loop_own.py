# SPDX-License-Identifier: Apache-2.0
"""Networks of one's own, with dropout and BatchNorm, train as ensembles: one program, any mesh, resumed bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding

from ncjax.config import ModelConfig
from ncjax.distributed.mesh import REPLICATED
from ncjax.errors import UserError
from ncjax.models import Network, Variables, from_linen, from_nnx
from ncjax.training import checkpoints as checkpoint
from ncjax.training.functions import OwnFunctions
from ncjax.training.loop import fit, prepare
from ncjax.training.state import init_state
from ncjax.training.step import compile_chunk
from tests.own import CONFIG, LinenNet, Net

OWN = {"nnx": OwnFunctions(network=from_nnx(Net)), "linen": OwnFunctions(network=from_linen(LinenNet(5)))}
TWO_RATES = dataclasses.replace(CONFIG, seeds=2, optim=dataclasses.replace(CONFIG.optim, lr=(0.05, 0.01)))


def steps(run, ensemble, state, first, last):
    """Losses `[t s]` of the steps first..last, and the state after them."""
    program = compile_chunk(run.spec, state, run.images, ensemble)
    losses, at = [], first
    while at < last:
        end = min((at // run.spec.steps_per_epoch + 1) * run.spec.steps_per_epoch, last)
        stop = jax.device_put(jnp.asarray(end, jnp.int32), NamedSharding(run.spec.mesh, REPLICATED))
        state, chunk = program(state, run.images, ensemble, stop)
        taken = min(run.config.chunk_steps, end - at)
        losses.append(np.asarray(chunk.loss)[:taken])
        at += taken
    return np.concatenate(losses), state


def trained(config, dataset, own, last=12):
    run = prepare(config, dataset, own)
    return steps(run, run.ensemble, init_state(run.spec, run.ensemble), 0, last)


def assert_close(one, other, atol):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


@pytest.mark.parametrize("kind", OWN)
def test_four_members_are_one_program_and_equal_four_single_runs(dataset, kind):
    losses, state = trained(TWO_RATES, dataset, OWN[kind])
    assert losses.shape == (12, 4)
    assert np.unique(losses[-1]).size == 4
    run = prepare(TWO_RATES, dataset, OWN[kind])
    for member in range(4):
        alone = jax.tree.map(lambda x, i=member: x[i : i + 1], run.ensemble)
        own_losses, own_state = steps(run, alone, init_state(run.spec, alone), 0, 12)
        np.testing.assert_allclose(losses[:, member], own_losses[:, 0], atol=1e-5, rtol=0)
        assert_close(jax.tree.map(lambda x, i=member: x[i : i + 1], state.members), own_state.members, 1e-5)


@pytest.mark.parametrize("mesh", [(2, 4), *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in ((1, 8), (4, 2)))])
@pytest.mark.parametrize("kind", OWN)
def test_one_device_equals_eight(dataset, with_mesh, kind, mesh):
    alone, state = trained(TWO_RATES, dataset, OWN[kind])
    spread, spread_state = trained(with_mesh(TWO_RATES, *mesh), dataset, OWN[kind])
    np.testing.assert_allclose(spread, alone, atol=1e-5, rtol=0)
    assert_close(spread_state, state, 1e-4)


def test_members_add_no_compiled_programs(dataset, tmp_path):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, secs, **kwargs: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    counts = []
    for seeds in (2, 4):
        before = len(compiled)
        run = prepare(dataclasses.replace(CONFIG, seeds=seeds), dataset, OWN["nnx"])
        (tmp_path / str(seeds)).mkdir()
        fit(run, tmp_path / str(seeds), lambda epoch, state: None)
        counts.append(len(compiled) - before)
    assert 0 < counts[1] <= counts[0]


@pytest.mark.parametrize("kind", OWN)
def test_resumed_run_equals_straight_run_bit_for_bit(dataset, tmp_path, kind):
    straight, final = trained(CONFIG, dataset, OWN[kind])
    first, state = trained(CONFIG, dataset, OWN[kind], 7)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state)
    run = prepare(CONFIG, dataset, OWN[kind])
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        restored = checkpoint.restore_latest(checkpoints, init_state(run.spec, run.ensemble))
    second, ended = steps(run, run.ensemble, restored, 7, 12)
    np.testing.assert_array_equal(np.concatenate([first, second]), straight)
    assert_close(ended, final, 0)


def linear_init(key, image_shape, num_classes):
    return Variables({"kernel": jax.random.normal(key, (int(np.prod(image_shape)), num_classes))})


def linear_apply(variables, images, *, train, key):
    features = images.reshape(len(images), -1)
    return {"logits": features @ variables.params["kernel"], "features": features}, variables


LINEAR = Network(init=linear_init, apply=linear_apply)


def test_a_step_of_functions_of_ones_own_is_that_of_the_formula(dataset):
    """Gradient descent on `|z - y|^2 / 2` of a linear network, by hand in NumPy, with its own schedule and images."""
    own = OwnFunctions(
        network=LINEAR,
        loss=lambda z, y, mask: ((z - jax.nn.one_hot(y, z.shape[1])) ** 2).sum(axis=1) / 2,
        optimizer=lambda rate, decay: optax.chain(optax.add_decayed_weights(decay), optax.scale(-rate)),
        schedule=lambda step, total: 1 - step / total,
        augment=lambda key, images: images[:, ::-1],
    )
    config = dataclasses.replace(TWO_RATES, labels=("fine",))
    run = prepare(config, dataset, own)
    state = init_state(run.spec, run.ensemble)
    kernels = np.asarray(state.members.params["kernel"], np.float64)
    losses, state = steps(run, run.ensemble, state, 0, 2)
    pixels = (dataset.train.images / 255 - np.asarray(run.images.mean)) / np.asarray(run.images.std)
    pixels = pixels[:, ::-1].reshape(160, -1)
    for member, who in enumerate(run.members):
        kernel = kernels[member]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(who.seed), 1), 0)
        order = np.asarray(jax.random.permutation(key, jnp.arange(160, dtype=jnp.int32)))
        for step in range(2):
            rows = order[16 * step : 16 * (step + 1)]
            error = pixels[rows] @ kernel - np.eye(10)[dataset.train.labels[rows]]
            np.testing.assert_allclose(losses[step, member], (error**2).sum(axis=1).mean() / 2, rtol=1e-4)
            gradient = pixels[rows].T @ error / 16 + who.weight_decay * kernel
            kernel = kernel - who.lr * (1 - step / 30) * gradient
        np.testing.assert_allclose(np.asarray(state.members.params["kernel"])[member], kernel, atol=1e-4)


def makes_state(variables, images, *, train, key):
    outputs, _ = linear_apply(variables, images, train=train, key=key)
    return outputs, Variables(variables.params, {"count": jnp.zeros(())})


WRONG = {
    "network is Net": {"network": Net},
    "optim.precision must be float32 or tf32": {"network": LINEAR},
    "makes or drops batch_stats": {"network": Network(init=linear_init, apply=makes_state)},
    "logits are": {"network": from_linen(LinenNet(7))},
    "one number an example": {"loss": lambda z, y, mask: z.mean()},
    "must keep their shape": {"augment": lambda key, images: images[:, 1:]},
    "must be a function": {"schedule": "cosine"},
}


@pytest.mark.parametrize("message", WRONG)
def test_functions_that_do_not_fit_are_refused_before_the_first_step(dataset, message):
    config = dataclasses.replace(CONFIG, seeds=1, model=ModelConfig(name="mlp", width=4))
    if "precision" in message:
        config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, precision="bfloat16"))
    with pytest.raises(UserError, match=message) as error:
        prepare(config, dataset, OwnFunctions(**WRONG[message]))
    assert "\n" not in str(error.value)
