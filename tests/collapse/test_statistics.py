# SPDX-License-Identifier: Apache-2.0
"""Statistics of parts merge into those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from ncjax.collapse import class_statistics, merge, merge_classes, merge_devices, nc1
from ncjax.distributed.sharding import shard_map
from tests.collapse.inputs import SUPER, N, some, statistics


def assert_same(found, wanted, rtol=1e-5):
    for name in ("counts", "squares", "scatter"):
        scale = np.abs(np.asarray(getattr(wanted, name))).max()
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=rtol, atol=rtol * scale)
    means = [np.asarray(s.means, np.float64) + np.asarray(s.origin)[None, :] for s in (found, wanted)]
    np.testing.assert_allclose(*means, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_chunks_devices_and_super_classes_merge_into_the_whole(offset):
    x, y = some(5, offset=offset)
    rtol = 1e-5 if offset == 0 else 1e-3
    whole = statistics(x, y, 8)
    parts = [statistics(x[i : i + 60], y[i : i + 60], 8) for i in range(0, N, 60)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    assert_same(merged, whole, rtol)
    assert_same(merge_classes(merged, jnp.array(SUPER), 4), statistics(x, np.asarray(SUPER, np.int32)[y], 4), rtol)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharded = shard_map(
        lambda x, y: merge_devices(class_statistics(x, y, 8), "data"),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
    )
    assert_same(jax.jit(sharded)(x, y), whole, rtol)


def test_members_are_measured_at_once():
    x, y = some(2)
    members = jnp.stack([jnp.asarray(x), 2 * jnp.asarray(x) ** 2])
    found = jax.vmap(lambda m: nc1(class_statistics(m, jnp.asarray(y), 8)).nc1)(members)
    assert found.tolist() == pytest.approx([float(nc1(statistics(m, y, 8)).nc1) for m in members], rel=1e-4)
