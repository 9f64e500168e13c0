# SPDX-License-Identifier: Apache-2.0
"""CIFAR as it is distributed: names, super-classes, and pickles that ask for too much."""

import pickle

import numpy as np
import pytest

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.data.label_maps import LabelMap
from ncjax.errors import UserError

RNG = np.random.default_rng(0)
FINE = [f"fine_{i:02}" for i in range(100)]
COARSE = [f"coarse_{i:02}" for i in range(20)]
OWNER = RNG.permutation(np.arange(100) % 20)
PIXELS = RNG.integers(0, 256, (100, 3072), dtype=np.uint8)
LABELS = RNG.permutation(100)


def binary(folder, coarse=None):
    coarse = OWNER[LABELS] if coarse is None else coarse
    for name in ("train.bin", "test.bin"):
        rows = np.concatenate([coarse[:, None], LABELS[:, None], PIXELS], axis=1)
        (folder / name).write_bytes(rows.astype(np.uint8).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(FINE) + "\n")
    (folder / "coarse_label_names.txt").write_text("\r\n".join(COARSE) + "\r\n\r\n")


def pickled(folder, key=str, protocol=4, coarse=None):
    coarse = OWNER[LABELS] if coarse is None else coarse
    content = {
        "data": PIXELS,
        "fine_labels": LABELS.tolist(),
        "coarse_labels": coarse.tolist(),
        "filenames": ["a"] * 100,
    }
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({key(k): v for k, v in content.items()}, protocol))
    meta = {key("fine_label_names"): [key(one) for one in FINE], key("coarse_label_names"): [key(c) for c in COARSE]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol))


def load(folder, kind="cifar100", **options):
    return load_dataset(DataConfig(source=kind, path=str(folder), **options))


@pytest.mark.parametrize("write", [
    binary, pickled, lambda f: pickled(f, str.encode, 2), lambda f: pickled(f, str.encode, 5),
    lambda f: pickled(f, str, 0),
], ids=["binary", "Python 3", "bytes, protocol 2", "bytes, protocol 5", "protocol 0"])  # fmt: skip
def test_every_form_has_names_and_super_classes(tmp_path, write):
    write(tmp_path)
    dataset = load(tmp_path)
    assert dataset.class_names == tuple(FINE)
    assert dataset.super_classes == tuple(COARSE[i] for i in OWNER)
    np.testing.assert_array_equal(dataset.train.labels, LABELS)
    np.testing.assert_array_equal(dataset.train.images[3, 4, 5], PIXELS.reshape(100, 3, 32, 32)[3, :, 4, 5])
    found = LabelMap.parse("superclass", dataset.class_names, dataset.super_classes)
    assert found.super_class == tuple(OWNER.tolist())


@pytest.mark.parametrize("write", [binary, pickled])
def test_without_name_files_classes_have_numbers(tmp_path, write):
    write(tmp_path)
    first = load(tmp_path)
    for name in ("meta", "fine_label_names.txt", "coarse_label_names.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    dataset = load(tmp_path)
    assert dataset.class_names[7] == "class 7"
    assert LabelMap.parse("superclass", dataset.class_names, dataset.super_classes).super_class == tuple(OWNER.tolist())
    assert dataset.fingerprint != first.fingerprint


@pytest.mark.parametrize("write", [binary, pickled])
@pytest.mark.parametrize(
    ("row", "value", "message"), [(5, 77, "outside 0 to 19"), (None, None, "has the coarse labels")]
)
def test_coarse_labels_that_are_no_hierarchy_are_refused(tmp_path, write, row, value, message):
    coarse = OWNER[LABELS].copy()
    if row is None:
        write(tmp_path)
        kept = {name: (tmp_path / name).read_bytes() for name in ("train", "train.bin") if (tmp_path / name).exists()}
        write(tmp_path, coarse=(coarse + 1) % 20)
        for name, content in kept.items():
            (tmp_path / name).write_bytes(content)
    else:
        coarse[row] = value
        write(tmp_path, coarse=coarse)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_file_beside_the_data_is_the_hierarchy_that_is_meant(tmp_path):
    binary(tmp_path)
    rows = [f"{name},{'low' if i < 50 else 'high'}" for i, name in enumerate(FINE)]
    (tmp_path / "superclasses.csv").write_text("\n".join(rows))
    assert load(tmp_path).super_classes == ("low",) * 50 + ("high",) * 50


@pytest.mark.parametrize("names", [FINE[:99], [*FINE[:99], FINE[0]], [], ["x" * 10] * 100])
def test_names_that_do_not_fit_are_refused(tmp_path, names):
    binary(tmp_path)
    (tmp_path / "fine_label_names.txt").write_text("\n".join(names))
    with pytest.raises(UserError, match=r"fine_label_names\.txt does not name 100 classes, each once"):
        load(tmp_path)


@pytest.mark.parametrize("form", ["meta", "text"])
def test_the_names_of_cifar10_come_from_its_files(tmp_path, form):
    names = [f"name_{i}" for i in range(10)]
    rows = np.concatenate([(np.arange(10) % 10)[:, None], PIXELS[:10]], axis=1).astype(np.uint8).tobytes()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (tmp_path / f"{name}.bin").write_bytes(rows)
    if form == "text":
        (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    else:
        (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [one.encode() for one in names]}, 2))
    assert load(tmp_path, "cifar10").class_names == tuple(names)
    assert load(tmp_path, "cifar10", image_size=16).train.images.shape == (50, 16, 16, 3)


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "a memo of 2**31 entries": b"\x80\x02}r" + (2**31 - 2).to_bytes(4, "little") + b".",
    "a memo by text": b"(dp99999999999\n.",
    "eval": pickle.dumps({"data": Call(eval, "1")}),
    "print": pickle.dumps({"data": Call(print, "owned")}),
    "an array of 2**50 bytes": pickle.dumps({"data": Call(np.zeros(0).__reduce__()[0], np.ndarray, (2**50,), b"b")}),
    "a type of its own": pickle.dumps({"data": np.zeros((100, 3072), "u1,u1"), "fine_labels": [0] * 100}),
    "objects": pickle.dumps({"data": np.array([None] * 3), "fine_labels": [0]}),
    "a list": pickle.dumps([1, 2]),
    "cut off": pickle.dumps({"data": PIXELS})[:-500],
    "labels as text": pickle.dumps({"data": PIXELS, "fine_labels": ["1"] * 100}),
    "too few coarse labels": pickle.dumps({"data": PIXELS, "fine_labels": [0] * 100, "coarse_labels": [0] * 99}),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("file", ["train", "meta"])
def test_hostile_pickles_are_refused_by_name_and_run_nothing(tmp_path, name, file, capsys):
    pickled(tmp_path)
    (tmp_path / file).write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match=f"{file} (is not a cifar100 file|does not name 100 classes)") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
    assert "owned" not in capsys.readouterr().out


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    binary(tmp_path)
    with (tmp_path / "train.bin").open("ab") as file:
        file.truncate(10**12)
    with pytest.raises(UserError, match=r"train\.bin holds \d+ bytes, more than the 536870912"):
        load(tmp_path)
