# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from ncjax.config import MeshConfig, ModelConfig, OptimConfig
from ncjax.distributed.mesh import REPLICATED
from ncjax.errors import UserError
from ncjax.training import checkpoints as checkpoint
from ncjax.training import step
from ncjax.training.batch import make_batch
from ncjax.training.loop import fit, prepare
from ncjax.training.members import example_order
from ncjax.training.state import init_state
from ncjax.training.step import compile_chunk

FOUR = {"labels": ("mod:5", "fine"), "seeds": 2}


@pytest.fixture
def quick(config):
    """A network that compiles fast, where it does not matter which."""
    return dataclasses.replace(config, model=ModelConfig(name="mlp", width=8))


def ignore(epoch, state):
    del epoch, state


def steps(run, state, first, last):
    """Losses `[t s]` of the steps first..last, and the state after them."""
    program = compile_chunk(run.spec, state, run.images, run.ensemble)
    losses, at = [], first
    while at < last:
        end = min((at // run.spec.steps_per_epoch + 1) * run.spec.steps_per_epoch, last)
        stop = jax.device_put(jnp.asarray(end, jnp.int32), NamedSharding(run.spec.mesh, REPLICATED))
        state, chunk = program(state, run.images, run.ensemble, stop)
        taken = min(run.config.chunk_steps, end - at)
        losses.append(np.asarray(chunk.loss)[:taken])
        assert int(state.step) == at + taken
        at += taken
    return np.concatenate(losses), state


def start(config, dataset):
    run = prepare(config, dataset)
    return run, init_state(run.spec, run.ensemble)


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("mesh", [(2, 4), *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in ((1, 8), (4, 2)))])
def test_one_device_equals_eight(config, dataset, with_mesh, mesh):
    """At a small rate: at a large one rounding grows a hundredfold within a few steps."""
    config = dataclasses.replace(config, **FOUR, optim=dataclasses.replace(config.optim, lr=(0.002,)))
    alone, state = steps(*start(config, dataset), 0, 20)
    spread, spread_state = steps(*start(with_mesh(config, *mesh), dataset), 0, 20)
    np.testing.assert_allclose(spread, alone, atol=1e-5)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(spread_state), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-4)
    leaf = jax.tree.leaves(spread_state.members.params)[0]
    assert len({shard.index[0].start for shard in leaf.addressable_shards}) == mesh[0]


def test_sharded_parameters_change_no_loss(config, dataset):
    config = dataclasses.replace(config, model=ModelConfig(name="mlp", width=8), **FOUR)
    alone, _ = steps(*start(config, dataset), 0, 12)
    sharded = dataclasses.replace(config, mesh=MeshConfig(member=2, data=4, shard_params=True))
    losses, state = steps(*start(sharded, dataset), 0, 12)
    np.testing.assert_allclose(losses, alone, atol=1e-5)
    assert any("data" in leaf.sharding.spec for leaf in jax.tree.leaves(state.members.optimizer))


def test_member_of_an_ensemble_equals_the_same_member_alone(config, dataset):
    rates = dataclasses.replace(config.optim, lr=(0.05, 0.01), weight_decay=(0.0, 0.01))
    together, _ = steps(*start(dataclasses.replace(config, optim=rates, **FOUR), dataset), 0, 10)
    one = dataclasses.replace(config.optim, lr=(0.01,), weight_decay=(0.01,))
    alone, _ = steps(*start(dataclasses.replace(config, labels=("fine",), seeds=2, optim=one), dataset), 0, 10)
    np.testing.assert_allclose(together[:, -2:], alone, atol=1e-5)
    assert np.unique(together[-1]).size == 16


def test_sequential_members_equal_members_at_once(config, dataset, monkeypatch):
    config = dataclasses.replace(config, **FOUR)
    at_once, _ = steps(*start(config, dataset), 0, 10)
    monkeypatch.setattr(step, "ACTIVATION", 0)
    sequential, _ = steps(*start(config, dataset), 0, 10)
    np.testing.assert_allclose(sequential, at_once, atol=1e-5)


def test_coarse_member_beside_a_fine_one_ignores_the_classes_that_it_lacks(quick, dataset):
    together, _ = steps(*start(dataclasses.replace(quick, **FOUR), dataset), 0, 1)
    assert together[0, 0] < together[0, 2]  # about log 5 and log 10 at the start
    assert together[0, 0] == pytest.approx(np.log(5), abs=0.7)


def test_resumed_run_equals_straight_run_bit_for_bit(config, dataset, tmp_path):
    straight, final = steps(*start(config, dataset), 0, 20)
    run, state = start(config, dataset)
    first, state = steps(run, state, 0, 7)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state)
        steps(run, state, 7, 9)  # donates the state while it is being written
    run, like = start(config, dataset)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        restored = checkpoint.restore_latest(checkpoints, like)
    second, ended = steps(run, restored, 7, 20)
    np.testing.assert_array_equal(np.concatenate([first, second]), straight)
    assert_same(ended, final)


def test_checkpoint_of_one_device_goes_on_on_eight(quick, dataset, with_mesh, tmp_path):
    straight, _ = steps(*start(quick, dataset), 0, 12)
    _, state = steps(*start(quick, dataset), 0, 7)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state)
    run, like = start(with_mesh(quick, 1, 8), dataset)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        rest, _ = steps(run, checkpoint.restore_latest(checkpoints, like), 7, 12)
    np.testing.assert_allclose(rest, straight[7:], atol=1e-5)


def test_only_the_first_epoch_compiles(config, dataset, tmp_path):
    compiled, seen = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, secs, **kwargs: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    fit(prepare(config, dataset), tmp_path, lambda epoch, state: seen.append(len(compiled)))
    assert seen[0] > 0
    assert seen[2] == seen[3]


def test_training_learns_and_writes_what_it_saw(config, dataset, tmp_path):
    config = dataclasses.replace(
        config, optim=OptimConfig(lr=(0.1,), batch=16, epochs=12, schedule="one_cycle"), **FOUR
    )
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_padding=0))
    outcome = fit(prepare(config, dataset), tmp_path, ignore)
    seen = records(tmp_path)
    assert [r["epoch"] for r in seen] == list(range(1, 13))
    assert seen[-1]["step"] == 120
    names = [f"{labels}/lr=0.1/wd=5e-4/seed={seed}" for labels in ("mod:5", "fine") for seed in (0, 1)]
    assert list(seen[-1]["train_loss"]) == names
    assert min(seen[-1]["test_accuracy"].values()) > 0.9
    assert seen[-1]["lr"][names[0]] < 1e-3 < seen[2]["lr"][names[0]]
    assert outcome.failures == ()


def test_interrupted_run_goes_on_and_ends_like_an_undisturbed_one(quick, dataset, tmp_path):
    quick = dataclasses.replace(quick, checkpoint_epochs=1)

    class Interrupted(Exception):
        pass

    def interrupt(epoch, state):
        if epoch == 2:
            raise Interrupted

    undisturbed = fit(prepare(quick, dataset), tmp_path / "a", ignore)
    (tmp_path / "b").mkdir()
    with pytest.raises(Interrupted):
        fit(prepare(quick, dataset), tmp_path / "b", interrupt)
    epochs = []
    resumed = fit(prepare(quick, dataset), tmp_path / "b", lambda epoch, state: epochs.append(epoch))
    assert epochs == [2, 3]
    assert_same(resumed.state, undisturbed.state)
    lines = [[{**x, "wall_secs": 0} for x in records(tmp_path / d)] for d in "ab"]
    assert lines[0] == lines[1]


def test_member_that_turns_nan_is_named_and_frozen_and_the_others_go_on(quick, dataset, tmp_path):
    optim = dataclasses.replace(quick.optim, lr=(0.05, 1e30), schedule="constant")
    broken = dataclasses.replace(quick, optim=optim)
    outcome = fit(prepare(broken, dataset), tmp_path / "both", ignore)
    assert len(outcome.failures) == 1
    assert outcome.failures[0].startswith("member mod:5/lr=1e30/wd=5e-4/seed=0: loss or gradient not finite at step ")
    members = outcome.state.members
    assert f"step {int(members.nan_step[1])};" in outcome.failures[0]
    kept = (members.params, members.batch_stats, members.optimizer)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))
    healthy = dataclasses.replace(quick, optim=dataclasses.replace(optim, lr=(0.05,)))
    alone = fit(prepare(healthy, dataset), tmp_path / "alone", ignore)
    for both, one in zip(*(jax.tree.leaves(run.state.members.params) for run in (outcome, alone)), strict=True):
        np.testing.assert_allclose(both[0], one[0], atol=1e-5)


def test_each_epoch_is_a_new_order_of_all_images(config, dataset):
    seeds = jnp.asarray([0, 1], jnp.int32)
    orders = [np.asarray(example_order(seeds, jnp.asarray(epoch), 160)) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(160), (2, 1)))
    assert (orders[0][0] != orders[0][1]).any()
    assert (orders[0][0] != orders[1][0]).any()
    run = prepare(dataclasses.replace(config, seeds=2), dataset)
    batch = make_batch(run.spec, run.images, run.ensemble, jnp.asarray(orders[0]), jnp.asarray(3))
    expected = dataset.train.labels[orders[0][:, 48:64]] % 5
    np.testing.assert_array_equal(batch.targets, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": OptimConfig(batch=161)}, "optim.batch is 161, but bars has 160 training images"),
        ({"labels": ("mod:11",)}, "mod:11"),
    ],
)
def test_impossible_configs_are_refused_in_one_line(config, dataset, change, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(dataclasses.replace(config, **change), dataset)
    assert "\n" not in str(error.value)


def test_impossible_meshes_are_refused(config, dataset, with_mesh):
    with pytest.raises(UserError, match="needs 16 devices, but 8 cpu found"):
        prepare(with_mesh(config, 1, 16), dataset)
    with pytest.raises(UserError, match=r"mesh\.data is 3, but must be a divisor of optim.batch = 16"):
        prepare(with_mesh(config, 0, 3), dataset)


def test_unreadable_checkpoint_is_named(config, dataset, tmp_path):
    _, state = start(config, dataset)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state)
    for file in (tmp_path / "checkpoints" / "0").rglob("*"):
        if file.is_file() and "METADATA" not in file.name and file.name != "commit_success.txt":
            file.write_bytes(b"")
    with (
        checkpoint.open_checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError, match="checkpoints/0 cannot be"),
    ):
        checkpoint.restore_latest(checkpoints, state)
