# SPDX-License-Identifier: Apache-2.0
"""Examples that are sharded over eight devices: the same moments, and only sums are exchanged."""

from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax.collapse import reading
from ncjax.collapse.reading import Block, Labelled, block_moments, blocks, gather_moments
from ncjax.collapse.within import silhouette_sums
from ncjax.distributed.mesh import ROWS
from ncjax.distributed.sharding import shard_rows
from tests.distributed.collectives import largest_collective

MESH = Mesh(np.array(jax.devices()), (ROWS,))


def test_several_blocks_far_from_0_are_sharded_too(monkeypatch):
    """Blocks of 24 rows, the last of one; two rows are absent, and hold rubbish."""
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 10, 121).astype(np.int32)
    rows = (rng.normal(size=(121, 16)) + rng.normal(size=(10, 16))[fine] * 3 + 1e3).astype(np.float32)
    weights = np.where(np.isin(np.arange(121), (3, 120)), 0, 1).astype(np.float32)
    rows[3] = np.nan
    monkeypatch.setattr(reading, "BLOCK_BYTES", 3 * 16 * 4)
    assert [block.features.shape for block in blocks(Labelled(rows, fine), MESH)] == [(24, 16)] * 6
    data = Labelled(rows, fine, weights)
    one, eight = (jax.device_get(gather_moments(data, weights[None], 10, mesh)) for mesh in (None, MESH))
    np.testing.assert_array_equal(one.fine.counts, eight.fine.counts)
    for ours, theirs in (
        (one.fine.origin + one.fine.means, eight.fine.origin + eight.fine.means),
        (one.units.means, eight.units.means),
    ):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6)
    np.testing.assert_allclose(eight.fine.squares, one.fine.squares, rtol=1e-4)
    np.testing.assert_allclose(eight.fine.scatter, one.fine.scatter, atol=1e-2)


def test_devices_exchange_sums_and_no_examples():
    n, d, classes = 4096, 32, 10
    rows, labels = np.ones((n, d), np.float32), np.zeros(n, np.int32)
    block = Block(*(shard_rows(part, MESH) for part in (rows, labels, rows[:, 0])))
    assert largest_collective(block_moments.lower(block, None, None, classes).compile().as_text()) <= d * d
    moments = jax.tree.map(itemgetter(0), gather_moments(Labelled(rows, labels), np.ones((1, n), np.float32), classes))
    silhouettes = silhouette_sums.lower(block, moments, jnp.zeros(classes, jnp.int32)).compile().as_text()
    assert largest_collective(silhouettes) <= classes * d
