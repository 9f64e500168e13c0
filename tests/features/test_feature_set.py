# SPDX-License-Identifier: Apache-2.0
"""Features from memory: every float type, members, layers, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ncjax.errors import UserError
from ncjax.evaluation.evaluator import evaluate
from ncjax.features.feature_set import FeatureSet
from ncjax.storage.npy_rows import NpyRows
from tests.collapse import oracle
from tests.features.arrays import D, N, some


@pytest.mark.parametrize("make", [
    pytest.param(lambda x: x.astype(np.float16), marks=pytest.mark.slow),
    lambda x: x.astype(np.float64), lambda x: x.astype(jnp.bfloat16), jnp.asarray,
    lambda x: torch.tensor(x), lambda x: torch.tensor(x).bfloat16().requires_grad_(),
])  # fmt: skip
def test_every_type_gives_nearly_the_same(make):
    x, y = some()
    features = FeatureSet.from_arrays(make(x), torch.tensor(y) if isinstance(make(x), torch.Tensor) else y)
    (row,) = evaluate(features, label_map="mod:3", metrics=("nc1",), bootstrap=0).rows
    assert row.value("nc1", split="train", level="coarse") == pytest.approx(oracle.level(x, y % 3)["nc1"], rel=2e-2)


def test_maps_of_files_stay_on_disk(tmp_path):
    x, y = some()
    np.save(tmp_path / "x.npy", x)
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    (member,) = FeatureSet.from_arrays(rows, y).train.layers["features"]
    assert isinstance(member, NpyRows)
    np.testing.assert_array_equal(member[3:5], x[3:5])
    (part,) = FeatureSet.from_arrays(rows[1:], y[1:]).train.layers["features"]
    assert isinstance(part, np.memmap)


def test_members_and_layers_keep_their_order():
    x, y = some()
    features = FeatureSet.from_arrays({"late": np.stack([x, x + 1]), "early": np.stack([x[:, :3], x[:, 3:6]])}, y)
    assert features.layers == ("late", "early")
    assert features.names == ("features 0", "features 1")
    second = features.select([1])
    assert second.names == ("features 1",)
    np.testing.assert_array_equal(second.train.layers["early"][0], x[:, 3:6])
    assert features.choose_layers(["early"]).layers == ("early",)


def test_saved_features_are_read_back(tmp_path):
    (x, y), (z, w) = some(), some(1, 90)
    weights = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
    made = FeatureSet.from_arrays(
        {"features": np.stack([x, 2 * x]), "stage1": np.stack([x[:, :4], x[:, 4:8]])},
        y,
        {"features": np.stack([z, 2 * z]), "stage1": np.stack([z[:, :4], z[:, 4:8]])},
        w,
        classifier=(weights, None),
    )
    path = made.save(tmp_path / "f.npz")
    with np.load(path, allow_pickle=False) as stored:
        assert stored["classifier_weights"].shape == (2, D, 3)
        assert stored["members"].tolist() == ["features 0", "features 1"]
    again = FeatureSet.open(path)
    assert (again.layers, again.names) == (made.layers, made.names)
    for split in ("train", "test"):
        ours, theirs = getattr(made, split), getattr(again, split)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        for layer in made.layers:
            np.testing.assert_array_equal(np.stack(list(ours.layers[layer])), np.stack(list(theirs.layers[layer])))


SUPER = ["z", "a", "z", "m", "a", "m"]


@pytest.mark.parametrize("kind", ["memory", "npz", "pt", "saved"])
@pytest.mark.parametrize("class_names", [(), ("ant", "bee", "cow", "dog", "emu", "fox")])
def test_super_classes_of_features_are_a_label_map(tmp_path, monkeypatch, kind, class_names):
    """Numbered in alphabetical order of their names."""
    monkeypatch.chdir(tmp_path)
    x, y = some()
    names = {"class_names": list(class_names)} if class_names else {}
    if kind == "pt":
        torch.save({"features": torch.tensor(x), "labels": torch.tensor(y), "super_classes": SUPER, **names}, "f.pt")
    np.savez("f.npz", features=x, labels=y, super_classes=np.array(SUPER), **names)
    features = FeatureSet.from_arrays(x, y, super_classes=SUPER, class_names=class_names)
    if kind != "memory":
        features = FeatureSet.open(features.save("g.npz") if kind == "saved" else f"f.{kind}")
    (row,) = evaluate(features, label_map="superclass", views=(), metrics=("nc1",), bootstrap=0).rows
    assert row.super_class == (2, 0, 2, 1, 0, 1)


def test_super_classes_that_are_missing_or_do_not_fit_are_one_line():
    x, y = some()
    with pytest.raises(UserError, match=r"superclass needs .* features with an array super_classes, .*by file:PATH"):
        evaluate(FeatureSet.from_arrays(x, y), label_map="superclass", views=(), bootstrap=0)
    with pytest.raises(UserError, match="super_classes names 5 for 6 classes; give one for each"):
        FeatureSet.from_arrays(x, y, super_classes=SUPER[1:])


BAD = {
    r"train features are \[180, 12, 1, 1\], but must be": lambda x, y: (x[..., None, None], y),
    "train has 12 rows of features and 180 labels": lambda x, y: (x[..., None], y),
    "train has 180 rows of features and 179 labels": lambda x, y: (x, y[1:]),
    "train label -1 of row 0 is out of range": lambda x, y: (x, y - 1),
    "train labels are of type float64, but must be whole": lambda x, y: (x, y + 0.5),
    "train labels are of type <U": lambda x, y: (x, y.astype(str)),
    r"train labels are \[180, 1\]": lambda x, y: (x, y[:, None]),
    "train features are of type <U": lambda x, y: (x.astype(str), y),
    "train features have no labels": lambda x, y: (x, None),
    "test features have no labels": lambda x, y: (x, y, x),
    "train has 12 features and test 11": lambda x, y: (x, y, x[:, 1:], y),
    "test has 180 rows of features and 3 labels": lambda x, y: (x, y, x, y[:3]),
    "train has the layers a, test b": lambda x, y: ({"a": x}, y, {"b": x}, y),
    "train features hold no layer": lambda x, y: ({}, y),
    "train layers have different members": lambda x, y: ({"a": x, "b": np.stack([x, x])}, y),
    "train has features of 2 members and test of 1": lambda x, y: (np.stack([x, x]), y, x, y),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arrays_are_named(message):
    with pytest.raises(UserError, match=message) as error:
        FeatureSet.from_arrays(*BAD[message](*some()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("classifier", "message"), [
    ((np.ones((3, D + 1)), None), r"classifier weights are \[3, 13\], but must be \[classes, 12\]"),
    ((np.ones((3, D)), np.ones(4)), r"classifier bias is \[4\], but must be \[3\]"),
    ((np.full((3, D), np.inf), None), "hold NaN or infinite"),
    ((np.ones((2, 3, D)), None), "classifiers of 2 members, but features of 1"),
])  # fmt: skip
def test_bad_classifiers_are_named(classifier, message):
    with pytest.raises(UserError, match=message):
        FeatureSet.from_arrays(*some(), classifier=classifier)


def test_rows_that_are_all_nan_are_refused_when_they_are_measured():
    x, y = some()
    with pytest.raises(UserError, match="every row of the train features holds NaN"):
        evaluate(FeatureSet.from_arrays(x * np.nan, y))
    assert len(y) == N
