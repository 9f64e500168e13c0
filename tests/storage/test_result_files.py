# SPDX-License-Identifier: Apache-2.0
"""results/examples.npz and results/clusters/: what is written is read again, and what does not fit is refused."""

import re

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.examples import Examples, Planes
from ncjax.storage.result_files import arrays_of, examples_file, read_clusters, read_examples

PLANE = np.arange(6, dtype=np.float32).reshape(3, 2)
WHOLE = Examples(
    train_labels=np.arange(5, dtype=np.int32),
    test_labels=np.arange(4, dtype=np.int32),
    rows=np.array([0, 2, 4], np.int32),
    thumbnails=np.zeros((3, 2, 2, 1), np.uint8),
    epoch=7,
    planes={"a": Planes(PLANE, PLANE + 1), "b": Planes(PLANE + 2, PLANE + 3)},
)
BARE = Examples(train_labels=np.arange(5, dtype=np.int32), rows=np.zeros(0, np.int32))


def save(workdir, arrays) -> None:
    path = examples_file(workdir)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


@pytest.mark.parametrize("examples", [WHOLE, BARE], ids=["whole", "bare"])
def test_examples_are_read_as_they_were_written(examples, tmp_path) -> None:
    save(tmp_path, arrays_of(examples))
    found = read_examples(tmp_path)
    assert found.epoch == examples.epoch
    assert list(found.planes) == list(examples.planes)
    for name, plane in examples.planes.items():
        np.testing.assert_array_equal(found.planes[name].whole, plane.whole)
        np.testing.assert_array_equal(found.planes[name].inside, plane.inside)
    for name in ("train_labels", "test_labels", "rows", "thumbnails"):
        np.testing.assert_array_equal(getattr(found, name), getattr(examples, name))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": np.array([0, 2, 5], np.int32)},
        {"rows": np.array([-1, 2, 4], np.int32)},
        {"rows": np.array([0, 2], np.int32)},
        {"thumbnails": np.zeros((2, 2, 2, 1), np.uint8)},
        {"names": np.array(["a"])},
        {"whole": np.zeros((2, 2, 2), np.float32)},
        {"epoch": np.array("seven")},
        {"train_labels": None},
        {"rows": None},
    ],
)
def test_examples_that_do_not_fit_are_refused(change, tmp_path) -> None:
    arrays = arrays_of(WHOLE) | change
    save(tmp_path, {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=re.escape(f"run: ncjax evaluate {tmp_path}")):
        read_examples(tmp_path)


def test_missing_files_say_what_writes_them(tmp_path) -> None:
    with pytest.raises(UserError, match=r"examples\.npz is missing; run: ncjax evaluate"):
        read_examples(tmp_path)
    with pytest.raises(UserError, match=r"clusters/3\.npz cannot be read"):
        read_clusters(tmp_path, 3)
