# SPDX-License-Identifier: Apache-2.0
"""PyTorch trains like us: the same batches, bit for bit, and from the same weights the same losses."""

import dataclasses
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ncjax.config import DataConfig, LossConfig, ModelConfig
from ncjax.data import load_dataset
from ncjax.errors import UserError
from ncjax.models import NETWORKS
from ncjax.ops.precision import double_precision
from ncjax.storage.metrics import read_records
from ncjax.torch_port.step import TorchOptions, make_loss, make_step, to_images
from ncjax.torch_port.train import epoch_batches, fit, network_of, schedule_factors
from ncjax.training import loop
from ncjax.training.batch import make_batch
from ncjax.training.loop import prepare
from ncjax.training.members import example_order
from ncjax.training.state import init_state
from ncjax.training.step import train_step

STEPS = 20


@pytest.fixture
def two_members(config):
    return dataclasses.replace(config, seeds=2, labels=("mod:5", "fine"))


def test_batches_are_those_of_jax_bit_for_bit(two_members, dataset):
    run = prepare(two_members, dataset)
    order = example_order(run.ensemble.seed, jnp.asarray(1, jnp.int32), 160)
    for member in (1, 2):
        steps = 0
        for first, images, targets in epoch_batches(run, member, 1):
            for place in range(len(images)):
                step = jnp.asarray(first + place, jnp.int32)
                batch = jax.jit(make_batch, static_argnums=0)(run.spec, run.images, run.ensemble, order, step)
                np.testing.assert_array_equal(images[place].numpy(), batch.images[member])
                np.testing.assert_array_equal(targets[place].numpy(), batch.targets[member])
                steps += 1
        assert steps == 10


CASES = {
    "cnn": (ModelConfig(name="cnn", width=8), True, "one_cycle", 0.02),
    "cnn, plain momentum": (ModelConfig(name="cnn", width=8), False, "step", 0.02),
    "mlp": (ModelConfig(name="mlp", width=16), False, "constant", 0.02),
    "densenet": (ModelConfig(name="densenet", width=4, dense_blocks=(2, 2)), True, "cosine", 0.002),
    "vgg11": (ModelConfig(name="vgg11", width=8), True, "constant", 2**-9),  # the same in float32 and float64
    "resnet18": (ModelConfig(name="resnet18", width=4), True, "one_cycle", 0.002),
}
DOUBLE = ("cnn, plain momentum", "densenet", "vgg11")  # both sides
OF_PYTORCH = ("resnet18",)  # in float64, beside ours in float32
SLOW = ("cnn", "cnn, plain momentum", "densenet", "vgg11", "resnet18")


@pytest.mark.parametrize("case", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_losses_on_digits_agree_for_twenty_steps(two_members, case):
    """Some deep networks do so in float64 alone: in float32 they part from that within a few steps."""
    model, nesterov, schedule, lr = CASES[case]
    dataset = load_dataset(DataConfig())
    optim = dataclasses.replace(two_members.optim, nesterov=nesterov, schedule=schedule, lr=(lr,), batch=128)
    run = prepare(dataclasses.replace(two_members, model=model, optim=optim, seeds=1, chunk_steps=10), dataset)
    options = TorchOptions(channels_last=case != "cnn")
    dtype = torch.float64 if case in OF_PYTORCH else torch.float32
    ours, theirs = in_double(run, options) if case in DOUBLE else both_losses(run, options, dtype)
    np.testing.assert_allclose(ours, theirs, atol=1e-6 if case in DOUBLE else 1e-4, rtol=0)
    assert np.ptp(ours, axis=0).min() > 0.01


NAMED = {
    "squared error": (LossConfig(name="squared_error", true_weight=3.0, true_value=2.0), "sgd", 0.02),
    "label smoothing": (LossConfig(label_smoothing=0.2), "sgd", 0.02),
    "AdamW": (LossConfig(), "adamw", 0.002),
}


@pytest.mark.parametrize("case", NAMED)
def test_named_losses_and_optimizers_agree_for_twenty_steps(two_members, case):
    loss, name, lr = NAMED[case]
    optim = dataclasses.replace(two_members.optim, name=name, lr=(lr,), weight_decay=(0.1,), beta2=0.9, batch=128)
    config = dataclasses.replace(two_members, loss=loss, optim=optim, seeds=1, model=ModelConfig(name="mlp", width=16))
    ours, theirs = both_losses(prepare(config, load_dataset(DataConfig())), TorchOptions(), torch.float64)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
    assert np.ptp(ours, axis=0).min() > 0.01


def test_losses_and_optimizers_without_a_twin_are_refused(two_members):
    network = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"^loss\.name is 'own:focal', but losses with a PyTorch twin are cross"):
        make_loss(LossConfig(name="own:focal"))
    optim = dataclasses.replace(two_members.optim, name="own:lion")
    with pytest.raises(UserError, match=r"^optim\.name is 'own:lion', but optimizers with a PyTorch twin are sgd"):
        make_step(network, optim, 0.0, 2, TorchOptions())


def in_double(run, options):
    """`both_losses` in float64; ours are rounded to float32 at the end."""
    with double_precision():
        network = NETWORKS[run.config.model.name](run.config.model, jnp.dtype("float64"))
        graph = jax.eval_shape(lambda: network.init(jax.random.key(0), run.spec.image_shape, run.spec.classes)).graph
        functions = dataclasses.replace(run.spec.functions, network=network)
        spec = dataclasses.replace(run.spec, functions=functions, graph=graph)
        return both_losses(dataclasses.replace(run, spec=spec), options, torch.float64)


def both_losses(run, options, dtype):
    """Losses `[t s]` of the first steps, ours and those of PyTorch."""
    state = init_state(run.spec, run.ensemble)
    networks = [network_of(run, state, member).to(dtype) for member in range(len(run.members))]
    if jax.config.jax_enable_x64:
        state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, state)
    step = jax.jit(one_step, static_argnums=0)
    ours = []
    for _ in range(STEPS):
        state, seen = step(run.spec, state, run.images, run.ensemble)
        ours.append(np.asarray(seen.loss))
    theirs = [torch_losses(run, member, network, options) for member, network in enumerate(networks)]
    return np.stack(ours), np.stack(theirs, axis=1)


def one_step(spec, state, images, ensemble):
    order = example_order(ensemble.seed, state.step // spec.steps_per_epoch, images.train.shape[0])
    return train_step(spec, state, make_batch(spec, images, ensemble, order, state.step), ensemble)


def torch_losses(run, member, network, options):
    who, rates = run.members[member], run.members[member].lr * schedule_factors(run)
    dtype = next(network.parameters()).dtype
    step = make_step(network, run.config.optim, who.weight_decay, who.label_map.classes, options, run.config.loss)
    losses = (
        float(step(to_images(x, options).to(dtype), y, float(rates[first + place]))[0])
        for epoch in range(2)
        for first, images, targets in epoch_batches(run, member, epoch)
        for place, (x, y) in enumerate(zip(images, targets, strict=True))
    )
    return list(islice(losses, STEPS))


def test_a_whole_training_ends_alike(two_members, dataset, tmp_path):
    run = prepare(two_members, dataset)
    features = fit(run, dataset, tmp_path, TorchOptions())
    records = read_records(tmp_path / "metrics.jsonl")
    assert [record.epoch for record in records] == [1, 2, 3]
    assert records[-1].step == 30
    (tmp_path / "ours").mkdir()
    loop.fit(run, tmp_path / "ours", lambda epoch, state: None)
    ours = read_records(tmp_path / "ours" / "metrics.jsonl")
    names = tuple(member.name for member in run.members)
    for metric in ("train_loss", "test_loss"):
        theirs, expected = records[-1].values[metric], ours[-1].values[metric]
        assert tuple(theirs) == tuple(expected) == names
        np.testing.assert_allclose(list(theirs.values()), list(expected.values()), atol=5e-3)
    assert features.names == names
    assert features.members == run.members
    assert features.epoch == 3
    assert features.train.layers["features"].shape == (4, 160, 16)
    assert features.test.logits.shape == (4, 50, 10)
    np.testing.assert_array_equal(features.train.labels, dataset.train.labels)
    np.testing.assert_array_equal(features.test.targets[0], dataset.test.labels % 5)
