# SPDX-License-Identifier: Apache-2.0
"""Where arrays lie on eight fake devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ncjax.config import MeshConfig
from ncjax.distributed.mesh import DATA, REPLICATED, ROWS, make_mesh, row_mesh
from ncjax.distributed.sharding import (
    member_sharding,
    padded_count,
    parameter_sharding,
    put,
    shard_map,
    shard_rows,
    to_first_device,
)

RNG = np.random.default_rng(0)


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(member=2, data=4), batch=8)


@pytest.mark.parametrize(("members", "expected"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 6)])
def test_members_are_padded_to_the_mesh(mesh, members, expected):
    assert padded_count(members, mesh) == expected


def test_states_are_sharded_over_members_and_parameters_over_data_too(mesh):
    tree = {
        "kernel": np.zeros((2, 3, 8, 16)),
        "odd": np.zeros((2, 3, 5)),
        "bias": np.zeros((2, 4)),
        "step": np.int32(0),
    }
    over_members = {name: sharding.spec for name, sharding in member_sharding(tree, mesh).items()}
    assert over_members == {"kernel": P("member"), "odd": P("member"), "bias": P("member"), "step": P()}
    over_both = {name: sharding.spec for name, sharding in parameter_sharding(tree, mesh).items()}
    assert over_both == {
        "kernel": P("member", None, None, "data"),  # the largest axis that four divides
        "odd": P("member", None, None),
        "bias": P("member", "data"),
        "step": P(),
    }


def test_put_gives_every_device_its_shard(mesh):
    tree = {"a": RNG.normal(size=(2, 4)).astype(np.float32), "b": np.arange(8)}
    replicated = put(tree, NamedSharding(mesh, REPLICATED))
    sharded = put(tree, {"a": NamedSharding(mesh, P("member", "data")), "b": NamedSharding(mesh, DATA)})
    for name, array in tree.items():
        assert replicated[name].sharding.is_fully_replicated
        np.testing.assert_array_equal(replicated[name], array)
        np.testing.assert_array_equal(sharded[name], array)
    assert {shard.data.shape for shard in sharded["a"].addressable_shards} == {(1, 1)}
    assert {shard.data.shape for shard in sharded["b"].addressable_shards} == {(2,)}


@pytest.mark.parametrize(("shape", "axis"), [((16, 3), 0), ((13, 3), 0), ((2, 9), 1)])
def test_rows_are_padded_with_zeros_and_sharded(shape, axis):
    array, mesh = RNG.normal(size=shape).astype(np.float32), row_mesh(MeshConfig(data=8))
    found = shard_rows(array, mesh, axis)
    assert found.shape[axis] == -(-shape[axis] // 8) * 8
    assert {shard.data.shape[axis] for shard in found.addressable_shards} == {found.shape[axis] // 8}
    whole = np.asarray(found)
    np.testing.assert_array_equal(np.take(whole, range(shape[axis]), axis), array)
    assert not np.take(whole, range(shape[axis], whole.shape[axis]), axis).any()
    alone = shard_rows(array, None, axis)
    assert alone.shape == shape
    assert len(alone.devices()) == 1


def test_results_of_all_devices_come_whole_to_the_first():
    mesh = row_mesh(MeshConfig(data=8))
    array = np.arange(16.0, dtype=np.float32)
    (found,) = to_first_device((shard_rows(array, mesh),), mesh)
    assert found.devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(found, array)
    tree = (jnp.ones(3),)
    assert to_first_device(tree, None) is tree


def test_a_function_of_the_shards_of_one_device():
    mesh = row_mesh(MeshConfig(data=8))
    summed = shard_map(
        lambda rows: jax.lax.psum(rows.sum(axis=0), ROWS), mesh=mesh, in_specs=P(ROWS), out_specs=REPLICATED
    )
    array = np.arange(32.0, dtype=np.float32).reshape(16, 2)
    np.testing.assert_array_equal(jax.jit(summed)(shard_rows(array, mesh)), array.sum(axis=0))
