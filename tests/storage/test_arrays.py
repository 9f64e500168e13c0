# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch become arrays with the same numbers, or are refused in one line; wherever they are given."""

import numpy as np
import pytest
import torch

import ncjax
from ncjax.errors import UserError
from ncjax.storage.arrays import tensor_to_numpy
from tests.features.arrays import some
from tests.tensors import ODD_TENSORS, ROWS

PLAIN = {
    "float16": ROWS.half(),
    "bfloat16": ROWS.bfloat16(),
    "float64": ROWS.double(),
    "int64": ROWS.long(),
    "uint16": ROWS.to(torch.uint16),
    "bool": ROWS > 2,
    "with a gradient": ROWS.clone().requires_grad_(),
    "parameter": torch.nn.Parameter(ROWS),
    "turned": ROWS.T,
    "every second": ROWS[::2],
    "negative by a flag": torch.complex(ROWS, ROWS).conj().imag,
    "conjugate by a flag": torch.complex(ROWS, ROWS).conj(),
    "without dimensions": ROWS[1, 1],
    "empty": ROWS[:0],
}


@pytest.mark.parametrize("tensor", PLAIN.values(), ids=PLAIN)
def test_numbers_are_kept(tensor):
    found = tensor_to_numpy("x", tensor)
    assert found.shape == tuple(tensor.shape)
    assert found.tolist() == tensor.tolist()
    assert str(found.dtype) == str(tensor.dtype).removeprefix("torch.").replace("bfloat16", "float32")


@pytest.mark.parametrize("tensor", ODD_TENSORS.values(), ids=ODD_TENSORS)
def test_what_holds_no_plain_numbers_is_one_line(tensor):
    with pytest.raises(UserError, match=r"^features of a\.pt (is|are) ") as caught:
        tensor_to_numpy("features of a.pt", tensor)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_view_that_repeats_a_number_beyond_the_memory_is_refused():
    with pytest.raises(UserError, match=r"x takes [\d,.]+ GiB, but this machine has"):
        tensor_to_numpy("x", ROWS[:1].expand(2**50, 2))


ROOM = {
    "features": lambda odd: ncjax.FeatureSet.from_arrays(odd, [0, 1, 1]),
    "labels": lambda odd: ncjax.FeatureSet.from_arrays(ROWS, odd),
    "classifier weights": lambda odd: ncjax.FeatureSet.from_arrays(ROWS, [0, 1, 1], classifier=(odd, None)),
    "classifier bias": lambda odd: ncjax.FeatureSet.from_arrays(ROWS, [0, 1, 1], classifier=(ROWS[:2], odd)),
    "points": lambda odd: ncjax.KMeans(2).fit(odd),
    "images": lambda odd: ncjax.Dataset.from_arrays(odd, [0, 1, 1], odd, [0, 1, 1]),
    "labels of images": lambda odd: ncjax.Dataset.from_arrays(np.zeros((3, 2, 2), np.uint8), odd, ROWS, odd),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
@pytest.mark.parametrize("take", ROOM.values(), ids=ROOM)
def test_every_function_that_takes_tensors_refuses_those_without_numbers(take, kind):
    with pytest.raises(UserError) as caught:
        take(ODD_TENSORS[kind])
    assert "\n" not in str(caught.value)
    assert any(word in str(caught.value) for word in ("must be", "save", "give", "which cannot"))


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_files_of_features_name_the_file(kind, tmp_path):
    torch.save({"features": ODD_TENSORS[kind], "labels": torch.tensor([0, 1, 1])}, tmp_path / "f.pt")
    with pytest.raises(UserError) as caught:
        ncjax.FeatureSet.open(tmp_path / "f.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'f.pt'}: train features ")
    assert "\n" not in str(caught.value)


def test_tensors_that_nobody_asks_for_do_no_harm(tmp_path):
    x, y = some()
    torch.save({"features": torch.tensor(x), "labels": torch.tensor(y), **ODD_TENSORS}, tmp_path / "f.pt")
    found = ncjax.FeatureSet.open(tmp_path / "f.pt")
    np.testing.assert_array_equal(found.train.layers["features"][0], x)
