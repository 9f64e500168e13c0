# SPDX-License-Identifier: Apache-2.0
"""Networks that cannot fit are refused from their shapes; the estimate is what the arrays take."""

import dataclasses
import math
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
from ncjax.training.memory import check_memory_of_members, member_bytes
from ncjax.training.state import init_state


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_estimate_is_that_of_the_state_and_one_gradient(config, dataset, optimizer):
    run = prepare(dataclasses.replace(config, optim=dataclasses.replace(config.optim, name=optimizer)), dataset)
    members = init_state(run.spec, run.ensemble).members
    arrays = jax.tree.leaves((members.params, members.params, members.batch_stats, members.optimizer))
    assert member_bytes(run.spec) == sum(array.nbytes for array in arrays)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_an_impossible_width_are_refused_before_anything_is_made(dataset, name, monkeypatch):
    monkeypatch.setattr("ncjax.training.loop.put_images", lambda *args, **named: pytest.fail("images were put"))
    monkeypatch.setattr("ncjax.training.loop.make_ensemble", lambda *args: pytest.fail("members were made"))
    blocks = {"dense_blocks": (6, 12)} if name == "densenet" else {}
    config = Config(model=ModelConfig(name=name, width=100_000, **blocks), optim=OptimConfig(batch=16))
    with pytest.raises(UserError, match=rf"^1 members of {name} with model\.width 100000 take .* GiB or more"):
        prepare(config, dataset)


@pytest.fixture
def prepared(config, dataset):
    return prepare(config, dataset)


def spec_on(prepared, shape, *devices, shard=False):
    """The spec on a mesh that does not exist."""
    config = dataclasses.replace(prepared.config, mesh=MeshConfig(shard_params=shard))
    sizes = dict(zip(("member", "data"), shape, strict=True))
    mesh = SimpleNamespace(local_devices=devices, shape=sizes, size=math.prod(shape))
    return dataclasses.replace(prepared.spec, config=config, mesh=mesh)


def device(platform, limit=None):
    statistics = None if limit is None else {"bytes_limit": limit}
    return SimpleNamespace(platform=platform, device_kind="H9000", memory_stats=lambda: statistics)


def fits(spec, members):
    try:
        check_memory_of_members(spec, members)
    except UserError:
        return False
    return True


@pytest.mark.parametrize(
    ("shape", "shard", "members", "share"),
    [((1, 1), False, 6, 6), ((2, 1), False, 6, 3), ((4, 1), False, 6, 2), ((1, 3), False, 6, 6), ((1, 3), True, 6, 2)],
)
def test_an_accelerator_must_hold_its_share(prepared, shape, shard, members, share):
    need = share * member_bytes(prepared.spec)
    assert fits(spec_on(prepared, shape, device("gpu", need), shard=shard), members)
    assert not fits(spec_on(prepared, shape, device("gpu", need - 1), shard=shard), members)


def test_what_is_refused_says_where_and_how_much(prepared):
    spec = spec_on(prepared, (1, 1), device("gpu", 2**20))
    with pytest.raises(UserError, match=r"a device \(H9000\) has 0\.0 GiB; take a smaller network, or fewer members"):
        check_memory_of_members(spec, 10_000)


def test_devices_that_do_not_say_are_not_checked(prepared):
    assert fits(spec_on(prepared, (1, 1), device("tpu")), 10**9)


def test_processors_share_the_memory_of_the_machine(prepared, monkeypatch):
    need = 4 * member_bytes(prepared.spec)
    spec = spec_on(prepared, (2, 1), device("cpu"), device("cpu"))
    for machine in (need, need - 1):
        monkeypatch.setattr(memory, "machine_bytes", lambda machine=machine: machine)
        assert fits(spec, 4) is (machine == need)


def test_networks_of_ones_own_are_named(config, dataset, monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1000)
    from tests.own import Net

    own = OwnFunctions(network=from_nnx(Net, name="ours"))
    with pytest.raises(UserError, match=r"members of ours take 0\.0 GiB or more"):
        prepare(config, dataset, own)
