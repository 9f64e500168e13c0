# SPDX-License-Identifier: Apache-2.0
"""Folders of npy files: the four arrays, layers in sub-folders, and what is wrong with them."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.features.feature_set import FeatureSet
from ncjax.storage.feature_folders import holds_features
from ncjax.storage.npy_rows import NpyRows
from tests.features.arrays import D, N, some


def write(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def four() -> dict[str, np.ndarray]:
    (x, y), (z, w) = some(), some(1, 90)
    return {"train_features": x, "train_labels": y, "test_features": z, "test_labels": w}


def test_four_files_are_both_splits_and_stay_on_disk(tmp_path):
    made = four()
    found = FeatureSet.open(write(tmp_path, **made))
    for name, split in (("train", found.train), ("test", found.test)):
        (rows,) = split.layers["features"]
        assert isinstance(rows, NpyRows)
        np.testing.assert_array_equal(rows[:], made[f"{name}_features"])
        np.testing.assert_array_equal(split.labels, made[f"{name}_labels"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_types_and_orders_are_read_right(tmp_path, dtype, order):
    x, y = some()
    wanted = np.asarray((10 * x).astype(jnp.bfloat16 if dtype == "bfloat16" else dtype), order=order)
    found = FeatureSet.open(write(tmp_path, train_features=wanted, train_labels=y))
    assert found.test is None
    (rows,) = found.train.layers["features"]
    np.testing.assert_array_equal(np.asarray(rows[5:9], np.float64), wanted[5:9].astype(np.float64))


@pytest.mark.parametrize("labels", ["top", "each", "both"])
def test_sub_folders_are_layers_in_the_order_of_their_numbers(tmp_path, labels):
    made = four()
    own = {name: array for name, array in made.items() if name.endswith("labels")}
    if labels != "each":
        write(tmp_path, **own)
    for name in ("block10", "block9"):
        beside = {} if labels == "top" else own
        write(tmp_path / name, train_features=made["train_features"], test_features=made["test_features"], **beside)
    found = FeatureSet.open(tmp_path)
    assert found.layers == ("block9", "block10")
    assert found.test.layers.keys() == found.train.layers.keys()
    np.testing.assert_array_equal(found.train.labels, made["train_labels"])


def test_names_and_a_classifier_lie_beside(tmp_path):
    names, weights = np.array([f"class {i}" for i in range(6)]), np.ones((6, D), np.float32)
    found = FeatureSet.open(write(tmp_path, **four(), class_names=names, weights=weights))
    assert found.class_names == tuple(names)
    assert found.classifier.weights.shape == (1, D, 6)


def test_what_is_wrong_is_named(tmp_path):
    made = four()
    (tmp_path / "empty").mkdir()
    assert not holds_features(tmp_path / "empty")
    with pytest.raises(UserError, match=r"empty holds no train_features.npy; save"):
        FeatureSet.open(tmp_path / "empty")
    with pytest.raises(UserError, match=r"holds none of train_labels.*only train_features"):
        FeatureSet.open(write(tmp_path / "a", train_features=made["train_features"]))
    with pytest.raises(UserError, match="test features have no labels"):
        FeatureSet.open(write(tmp_path / "b", **{k: v for k, v in made.items() if k != "test_labels"}))
    with pytest.raises(UserError, match=f"train has {N} rows of features and {N - 1} labels"):
        FeatureSet.open(write(tmp_path / "c", **{**made, "train_labels": made["train_labels"][1:]}))
    layered = write(tmp_path / "d", train_labels=made["train_labels"])
    write(layered / "one", train_features=made["train_features"], train_labels=made["train_labels"][::-1])
    with pytest.raises(UserError, match=r"one/train_labels.npy differs from the labels of .*d; give one order"):
        FeatureSet.open(layered)
