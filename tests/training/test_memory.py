# SPDX-License-Identifier: Apache-2.0
"""Networks that cannot fit are refused from their shapes; the estimate is what the arrays take."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest

from ncjax import from_nnx
from ncjax.config import Config, MeshConfig, ModelConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.models import NETWORKS
from ncjax.training import memory
from ncjax.training.functions import OwnFunctions
from ncjax.training.loop import prepare
from ncjax.training.memory import Memory, check_memory_of_members, member_bytes, memory_of
from ncjax.training.state import init_state
from tests.own import Net

QUICK = {"resnet18", "cnn", "mlp"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_estimate_is_that_of_the_state_and_one_gradient(config, dataset, optimizer):
    run = prepare(dataclasses.replace(config, optim=dataclasses.replace(config.optim, name=optimizer)), dataset)
    members = init_state(run.spec, run.ensemble).members
    arrays = jax.tree.leaves((members.params, members.params, members.batch_stats, members.optimizer))
    assert member_bytes(run.spec) == sum(array.nbytes for array in arrays)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_networks_of_an_impossible_width_are_refused_before_anything_is_made(dataset, name, monkeypatch):
    monkeypatch.setattr("ncjax.training.loop.put_images", lambda *args, **named: pytest.fail("images were put"))
    monkeypatch.setattr("ncjax.training.loop.make_ensemble", lambda *args: pytest.fail("members were made"))
    blocks = {"dense_blocks": (6, 12)} if name == "densenet" else {}
    config = Config(model=ModelConfig(name=name, width=100_000, **blocks), optim=OptimConfig(batch=16))
    with pytest.raises(UserError, match=rf"^1 members of {name} with model\.width 100000 take .* GiB or more"):
        prepare(config, dataset)


def fits(spec, members):
    try:
        check_memory_of_members(spec, members)
    except UserError:
        return False
    return True


@pytest.mark.parametrize(
    ("member", "data", "shard", "share"), [(1, 1, False, 6), (2, 1, False, 3), (4, 1, False, 2), (1, 2, True, 3)]
)
def test_a_device_must_hold_its_share_of_six_members(config, dataset, monkeypatch, member, data, shard, share):
    mesh = MeshConfig(member=member, data=data, shard_params=shard)
    spec = prepare(dataclasses.replace(config, mesh=mesh), dataset).spec
    for limit in (share * member_bytes(spec), share * member_bytes(spec) - 1):
        monkeypatch.setattr(memory, "memory_of", lambda _, limit=limit: Memory(limit, 1, "a device"))
        assert fits(spec, 6) is (limit == share * member_bytes(spec))


def test_processors_share_the_memory_of_the_machine(config, dataset, monkeypatch):
    spec = prepare(dataclasses.replace(config, mesh=MeshConfig(member=2)), dataset).spec
    for machine in (4 * member_bytes(spec), 4 * member_bytes(spec) - 1):
        monkeypatch.setattr(memory, "machine_bytes", lambda machine=machine: machine)
        assert fits(spec, 4) is (machine == 4 * member_bytes(spec))


def device(platform, statistics):
    return SimpleNamespace(platform=platform, device_kind="H9000", memory_stats=lambda: statistics)


def test_accelerators_say_how_much_they_have():
    assert memory_of([device("gpu", {"bytes_limit": 5})] * 3) == Memory(5, 1, "a device (H9000)")
    assert memory_of([device("tpu", None)]).limit == 0


def test_devices_that_do_not_say_are_not_checked(config, dataset, monkeypatch):
    spec = prepare(config, dataset).spec
    monkeypatch.setattr(memory, "memory_of", lambda _: Memory(0, 1, "a device"))
    assert fits(spec, 10**9)


def test_networks_of_ones_own_are_named(config, dataset, monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1000)
    own = OwnFunctions(network=from_nnx(Net, name="ours"))
    with pytest.raises(UserError, match=r"members of ours take 0\.0 GiB or more .* this machine has 0\.0 GiB; take a"):
        prepare(config, dataset, own)
