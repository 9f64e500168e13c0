# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch become arrays with the same numbers, or are refused in one line; wherever they are given."""

import jax
import numpy as np
import pytest
import torch

import ncjax
from ncjax import collapse
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


KEY = jax.random.key(0)
FINE = np.array([0, 1, 1], np.int32)
THREE = collapse.class_statistics(np.eye(3, 2, dtype=np.float32), np.arange(3), 3)

ROOM = {
    "features": lambda odd: ncjax.FeatureSet.from_arrays(odd, [0, 1, 1]),
    "labels": lambda odd: ncjax.FeatureSet.from_arrays(ROWS, odd),
    "classifier weights": lambda odd: ncjax.FeatureSet.from_arrays(ROWS, [0, 1, 1], classifier=(odd, None)),
    "classifier bias": lambda odd: ncjax.FeatureSet.from_arrays(ROWS, [0, 1, 1], classifier=(ROWS[:2], odd)),
    "points": lambda odd: ncjax.KMeans(2).fit(odd),
    "images": lambda odd: ncjax.Dataset.from_arrays(odd, [0, 1, 1], odd, [0, 1, 1]),
    "points of kmeans": lambda odd: ncjax.kmeans(KEY, odd, 2),
    "weights of kmeans": lambda odd: ncjax.kmeans(KEY, ROWS, 2, weights=odd),
    "initial centroids": lambda odd: ncjax.kmeans(KEY, ROWS, 2, init=odd),
    "points to be counted": lambda odd: ncjax.choose_num_clusters(KEY, odd, 2),
    "features of a probe": lambda odd: ncjax.fit_linear_probe(odd, FINE, 2),
    "labels of a probe": lambda odd: ncjax.fit_linear_probe(ROWS, odd, 2),
    "weights of a probe": lambda odd: ncjax.fit_linear_probe(ROWS, FINE, 2, weights=odd),
    "features of CLP": lambda odd: ncjax.cluster_and_linear_probe(odd, FINE, ROWS, FINE, [0, 0]),
    "features of moments": lambda odd: collapse.class_statistics(odd, FINE, 2),
    "labels of moments": lambda odd: collapse.class_statistics(ROWS, odd, 2),
    "super-classes": lambda odd: collapse.merge_classes(THREE, odd, 2),
    "weights of NC3": lambda odd: collapse.nc3(THREE, odd),
    "features of NC4": lambda odd: collapse.nc4(odd, THREE, np.eye(3, 2), np.zeros(3)),
    "Gram matrix": lambda odd: collapse.kernel_nc1(odd, FINE, 2),
    "labels of images": lambda odd: ncjax.Dataset.from_arrays(np.zeros((3, 2, 2), np.uint8), odd, ROWS, odd),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
@pytest.mark.parametrize("take", ROOM.values(), ids=ROOM)
def test_every_function_that_takes_tensors_refuses_those_without_numbers(take, kind):
    with pytest.raises(UserError) as caught:
        take(ODD_TENSORS[kind])
    assert "\n" not in str(caught.value)
    assert any(word in str(caught.value) for word in ("must be", "save", "give", "which cannot"))


DENSE = {
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "with a gradient": lambda x: x.clone().requires_grad_(),
    "turned": lambda x: x.T.contiguous().T,
    "every second": lambda x: x.repeat_interleave(2, 0)[::2],
    "parameter": torch.nn.Parameter,
}
LABELS = torch.arange(40) % 4
POINTS = torch.round(64 * torch.eye(4, 3)[LABELS] + 8 * torch.from_numpy(some(seed=3, n=40)[0][:, :3]))
TAKERS = {
    "kmeans": lambda x, y: ncjax.kmeans(KEY, x, 3, restarts=2)[:3],
    "KMeans": lambda x, y: ncjax.KMeans(3, random_state=0).fit(x, sample_weight=y + 1).inertia_,
    "fit_linear_probe": lambda x, y: ncjax.fit_linear_probe(x, y, 4, weights=y + 1.0).predict(x),
    "class_statistics": lambda x, y: collapse.class_statistics(x, y, 4),
    "nc3": lambda x, y: collapse.nc3(THREE, x[:3, :2]),
    "from_arrays": lambda x, y: ncjax.FeatureSet.from_arrays(x, y).train.layers["features"][0].astype(np.float32),
}


@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_dense_tensors_give_what_arrays_give(take, kind):
    """The numbers of the points are exact in every type."""
    ours, theirs = take(DENSE[kind](POINTS), LABELS), take(POINTS.numpy(), LABELS.numpy().astype(np.int32))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-5)


def test_names_and_documentation_of_a_function_stay():
    assert ncjax.kmeans.__doc__.startswith("Minimises")
    with pytest.raises(UserError, match=r"^kmeans: points is torch\.sparse_coo, but must be a dense tensor"):
        ncjax.kmeans(KEY, ODD_TENSORS["sparse"], k=2)


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
