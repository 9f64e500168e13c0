# SPDX-License-Identifier: Apache-2.0
"""Pieces hold every example once and in order, however batches are spread over devices."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ncjax.features.pieces import Piece, gather, in_order, own_rows
from ncjax.training.streaming import block_rows


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 40), st.integers(1, 90))
def test_examples_of_a_block_come_back_in_order(count, parts, own, first, examples):
    rows = block_rows(first, count, parts * own, parts, examples)
    found = in_order(rows[:, None, :, None], parts)[0, :, 0]
    np.testing.assert_array_equal(found, np.minimum(first + np.arange(count * parts * own), examples - 1))


@given(st.integers(1, 5), st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_each_part_of_the_batches_has_examples_of_its_own(count, parts, own):
    rows = block_rows(0, count, parts * own, parts, 10**6)
    for number, part in enumerate(np.split(rows, parts, axis=1)):
        np.testing.assert_array_equal(np.sort(part.ravel()), number * count * own + np.arange(count * own))


@pytest.mark.parametrize(("member", "data"), [(1, 1), (1, 8), (2, 4), (4, 2), (8, 1)])
def test_rows_of_the_devices_are_the_whole_piece(member, data):
    """Of 8 members on 45 of 48 examples, in batches of 16, that begin at example 100."""
    mesh = Mesh(np.array(jax.devices()[: member * data]).reshape(member, data), ("member", "data"))
    rows = block_rows(0, 3, 16, data, 45)
    values = np.arange(8)[:, None] * 1000 + np.arange(48)
    batches = [np.stack([values[:, batch], -values[:, batch]], axis=-1) for batch in rows]
    batches = np.stack([*batches, np.zeros_like(batches[0])])  # of a block that is not full
    array = jax.device_put(batches, NamedSharding(mesh, PartitionSpec(None, "member", "data")))
    piece = Piece("train", 100, 45, 3, np.arange(8, dtype=np.int32), {"features": array}, data)
    expected = np.stack([values, -values], axis=-1)[:, :45]
    np.testing.assert_array_equal(gather(piece)["features"], expected)
    seen = np.zeros((8, 145), int)
    for name, number, first, found in own_rows(piece):
        assert name == "features"
        np.testing.assert_array_equal(found, expected[number, first - 100 : first - 100 + len(found)])
        seen[number, first : first + len(found)] += 1
    np.testing.assert_array_equal(seen, np.broadcast_to(np.arange(145) >= 100, (8, 145)))
