# SPDX-License-Identifier: Apache-2.0
"""Features from every kind of file; nothing in one is executed."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ncjax.errors import UserError
from ncjax.features.feature_set import FeatureSet
from tests.features.arrays import D, N, some


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(kind, x, y, z, w):
    """The same content in a file of each kind; returns its name and where the rest is."""
    names = {"train_features": x, "train_labels": y, "test_features": z, "test_labels": w}
    if kind == "npz":
        np.savez("f.npz", **names)
    elif kind == "npy":
        for name, array in names.items():
            np.save(f"{name}.npy", array)
        return "train_features.npy", {
            "labels": "train_labels.npy",
            "test": "test_features.npy",
            "test_labels": "test_labels.npy",
        }
    else:
        tensors = {name: torch.tensor(array) for name, array in names.items()}
        tensors["train_features"] = tensors["train_features"].bfloat16()
        save_file(tensors, "f.safetensors") if kind == "safetensors" else torch.save(tensors, "f.pt")
    return f"f.{kind}", {}


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors", "pt"])
def test_every_kind_of_file(kind):
    (x, y), (z, w) = some(), some(1, 90)
    path, rest = write(kind, x, y, z, w)
    found = FeatureSet.open(path, **rest)
    (train,), (test,) = found.train.layers["features"], found.test.layers["features"]
    np.testing.assert_allclose(np.asarray(train, np.float32), x, rtol=1e-2 if kind in ("safetensors", "pt") else 0)
    np.testing.assert_array_equal(test, z)
    np.testing.assert_array_equal(found.train.labels, y)
    np.testing.assert_array_equal(found.test.labels, w)


def test_names_in_the_file_and_other_files_are_found():
    (x, y), (z, w) = some(), some(1, 90)
    np.savez("f.npz", features=x, mine=y, held=z)
    np.savez("labels.npz", test_y=w)
    np.savez("classifier.npz", weight=np.ones((3, D)), bias=np.arange(3.0))
    found = FeatureSet.open("f.npz", labels="mine", test="held", test_labels="labels.npz", classifier="classifier.npz")
    np.testing.assert_array_equal(found.train.labels, y)
    np.testing.assert_array_equal(found.test.labels, w)
    np.testing.assert_array_equal(found.classifier.bias, [[0, 1, 2]])
    assert found.classifier.weights.shape == (1, D, 3)
    assert len(found.train.labels) == N


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("f.pt", pickle.dumps(Trap()), "nothing of it was executed"),
    ("f.npz", b"no archive", "is not an npz file that can be read"),
    ("f.txt", b"", "is of no known kind"),
    ("gone.npz", None, "no file at gone.npz"),
])  # fmt: skip
def test_bad_files_are_named(name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        FeatureSet.open(name)
    assert "\n" not in str(error.value)
    assert not Path("executed").exists()


def test_pickled_arrays_are_not_read():
    np.save("f.npy", np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match=r"f\.npy holds Python objects, which are not read"):
        FeatureSet.open("f.npy")
    assert not Path("executed").exists()


def test_npz_bombs_are_refused_from_their_header():
    (x, y), file = some(), io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**30, 2**20)})
    np.savez("f.npz", features=x, labels=y)
    with zipfile.ZipFile("f.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("test_features.npy", file.getvalue() + bytes(2**20))
    with pytest.raises(UserError, match=r"f\.npz: test_features promises 4503599627370496 bytes, but \d+ bytes cannot"):
        FeatureSet.open("f.npz")


def test_compressed_files_of_pytorch_are_refused():
    """A thousandth of the size of what they hold."""
    x, y = some()
    torch.save({"features": torch.tensor(x), "labels": torch.tensor(y), "more": torch.zeros(2**20)}, "whole.pt")
    with zipfile.ZipFile("whole.pt") as whole, zipfile.ZipFile("f.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in whole.namelist():
            packed.writestr(member, whole.read(member))
    assert Path("f.pt").stat().st_size < Path("whole.pt").stat().st_size / 10
    FeatureSet.open("whole.pt")
    with pytest.raises(UserError, match=r"f\.pt: .* is compressed, as torch\.save never does it; load it in PyTorch"):
        FeatureSet.open("f.pt")


def test_missing_names_are_listed():
    np.savez("f.npz", x=some()[0], y=some()[1])
    with pytest.raises(UserError, match="holds none of train_features, train, features, only x, y"):
        FeatureSet.open("f.npz")
    np.savez("f.npz", features=some()[0], y=some()[1])
    with pytest.raises(UserError, match="holds no 'targets', only features, y"):
        FeatureSet.open("f.npz", labels="targets")


def test_lists_beside_tensors_are_read_and_the_rest_is_left():
    x, y = some()
    names = [f"kind {i}" for i in range(6)]
    torch.save({"features": torch.tensor(x), "labels": y.tolist(), "class_names": names, "epoch": 7}, "f.pt")
    found = FeatureSet.open("f.pt")
    np.testing.assert_array_equal(found.train.layers["features"][0], x)
    np.testing.assert_array_equal(found.train.labels, y)
    assert found.class_names == tuple(names)


@pytest.mark.parametrize(("content", "message"), [
    ({"epoch": 7, "net": {"w": torch.ones(2)}}, r"holds a dict of epoch \(int\), net \(dict\), but must hold a tensor"),
    ([torch.ones(2)], "holds a list, but must hold a tensor"),
    (3, "holds a int, but must hold a tensor"),
    ({}, "holds a dict, but must hold a tensor"),
    ({f"layer{i}.weight": torch.ones(2) for i in range(99)}, r"only layer0\.weight, .*, layer7\.weight and 91 more; "),
])  # fmt: skip
def test_files_of_pytorch_without_features_say_what_they_hold(content, message):
    torch.save(content, "f.pt")
    with pytest.raises(UserError, match=message) as error:
        FeatureSet.open("f.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["path", "labels", "test", "test_labels", "classifier"])
def test_every_path_may_begin_with_the_home_folder(option, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    x, y = some()
    everything = {"features": x, "labels": y, "test_features": x, "test_labels": y, "weights": np.ones((6, D))}
    np.savez("f.npz", **everything)
    np.savez("home/f.npz", **everything)
    np.savez("home/labels.npz", labels=y, test_labels=y)
    given = {"path": "f.npz", option: "~/labels.npz" if "labels" in option else "~/f.npz"}
    found = FeatureSet.open(given.pop("path"), **given)
    np.testing.assert_array_equal(found.train.labels, y)
    np.testing.assert_array_equal(found.test.labels, y)
