# SPDX-License-Identifier: Apache-2.0
"""Rows that Orbax wrote are indexed as those of NumPy."""

import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncjax.storage.stored_arrays import StoredRows, open_stored

WHOLE = np.random.default_rng(0).normal(size=(3, 40, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "features"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, {"train": {"features": WHOLE}}, save_args=None)
    return path


@pytest.mark.parametrize(
    "rows",
    [
        slice(3, 9),
        slice(None),
        slice(30, 99),
        slice(99, 120),
        slice(-5, None),
        slice(9, 3),
        slice(1, 30, 7),
        slice(None, None, -1),
        np.array([7, 0, 39, 7]),
        np.array([-1, -40]),
        np.array([], int),
        np.arange(40) % 3 == 0,
        4,
    ],
    ids=str,
)
def test_rows_are_those_of_numpy(folder, rows):
    found = StoredRows(open_stored(folder, "train.features")[1])
    np.testing.assert_array_equal(found[rows], WHOLE[1][rows])
    assert found.shape == (40, 5)
    assert found.dtype == np.float32
    assert len(found) == 40


def test_the_whole_is_an_array(folder):
    found = StoredRows(open_stored(folder, "train.features")[2])
    np.testing.assert_array_equal(np.asarray(found, np.float64), WHOLE[2].astype(np.float64))


def test_what_is_not_there_is_a_value_error(folder):
    with pytest.raises(ValueError, match="NOT_FOUND"):
        open_stored(folder, "test.features")


def test_rows_behind_the_last_are_refused(folder):
    with pytest.raises(ValueError, match="OUT_OF_RANGE"):
        StoredRows(open_stored(folder, "train.features")[0])[np.array([40])]
