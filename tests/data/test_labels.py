# SPDX-License-Identifier: Apache-2.0
"""Labels of any whole numbers as classes, through every door that takes arrays, files or label maps."""

import json

import numpy as np
import pytest
import torch

from ncjax.config import DataConfig
from ncjax.data import Dataset, load_dataset
from ncjax.data.label_maps import LabelMap
from ncjax.data.labels import number_classes
from ncjax.errors import UserError
from ncjax.evaluation import clp
from ncjax.evaluation.clp import cluster_and_linear_probe
from ncjax.evaluation.evaluator import evaluate
from ncjax.features.feature_set import FeatureSet

CLASSES = np.arange(60) % 4
POINTS = (np.eye(4, 6)[CLASSES] + 0.05 * np.random.default_rng(0).normal(size=(60, 6))).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
# ids of the classes 0 to 3, in order of size, so that the classes are their ranks
SPARSE = {
    "upper bits": np.array([3, 5, 7, 2**32 + 3]),
    "one far away": np.array([0, 1, 2, 200_000]),
    "just beyond int32": np.array([0, 1, 2, 2**31]),
    "equal modulo int32": np.array([7, 2**32 + 7, 2**33 + 7, 2**34 + 7]),
    "uint64 of an ignored class": np.array([0, 1, 2, 2**64 - 1], np.uint64),
    "uint64 that float64 confuses": np.array([0, 2**63, 2**63 + 1, 2**64 - 1], np.uint64),
    "float": np.array([0.0, 1.0, 2.0, 1e20]),
    "float32": np.array([0, 1, 2, 2.0**40], np.float32),
    "all huge": np.array([10**15, 10**16, 10**17, 10**18]),
    "int64 at its end": np.array([0, 1, 2, 2**63 - 1]),
    "a year and a day": np.array([20240101, 20240102, 20250101, 20260101], np.int32),
}
BAD = {
    "negative": (CLASSES - 1, "train label -1 of row 0 is out of range"),
    "negative and huge": (np.where(CLASSES == 3, -(2**40), CLASSES), "train label -1099511627776"),
    "fractional": (CLASSES / 2, "must be whole numbers"),
    "NaN": (np.where(CLASSES == 3, np.nan, CLASSES), "must be whole numbers"),
    "infinite": (np.where(CLASSES == 3, np.inf, CLASSES), "must be whole numbers"),
    "text": (CLASSES.astype(str), "must be whole numbers"),
    "true and false": (CLASSES > 1, "must be whole numbers"),
    "one-hot": (np.eye(4)[CLASSES], r"train labels are \[60, 4\], .* of one-hot rows give argmax"),
    "objects": (CLASSES.astype(object), "must be whole numbers"),
    "complex": (CLASSES.astype(complex), "must be whole numbers"),
    "ragged": ([[0], [1, 2], *[[0]] * 58], "train labels are no array"),
    "one alone": (np.int64(3), r"train labels are \[\]"),
}


def names_of(ids):
    return tuple(str(int(value)) for value in ids)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_ids_are_ranks_with_their_names(name):
    ids = SPARSE[name]
    found = number_classes({"train": ids[CLASSES], "test": ids[:2]})
    np.testing.assert_array_equal(found.labels["train"], CLASSES)
    np.testing.assert_array_equal(found.labels["test"], [0, 1])
    assert found.labels["train"].dtype == np.int32
    assert found.names == names_of(ids)


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [0, 1, 5, 9], [1, 2, 3, 4], [0, 1, 2, 999], [990, 991, 992, 1039]])
def test_ids_that_can_be_counted_up_to_stay_as_they_are(ids):
    labels = np.array(ids, np.int16)[CLASSES]
    found = number_classes({"train": labels})
    np.testing.assert_array_equal(found.labels["train"], labels)
    assert found.names == ()


def test_both_splits_are_numbered_together():
    found = number_classes({"train": np.array([10**6, 10**9]), "test": np.array([10**9, 10**7], np.uint64)})
    assert [found.labels[split].tolist() for split in ("train", "test")] == [[0, 2], [2, 1]]
    assert found.names == ("1000000", "10000000", "1000000000")


@pytest.mark.parametrize("name", SPARSE)
def test_features_of_sparse_ids_are_those_of_their_ranks(name, tmp_path):
    labels = SPARSE[name][CLASSES]
    np.savez(tmp_path / "a.npz", features=POINTS, labels=labels)
    made = FeatureSet.from_arrays(POINTS, labels, POINTS, labels[::-1])
    for features in (made, FeatureSet.open(made.save(tmp_path / "b.npz")), FeatureSet.open(tmp_path / "a.npz")):
        np.testing.assert_array_equal(features.train.labels, CLASSES)
        assert features.class_names == names_of(SPARSE[name])
    np.testing.assert_array_equal(made.test.labels, CLASSES[::-1])


def test_measures_of_sparse_ids_are_those_of_their_ranks():
    labels = SPARSE["equal modulo int32"][CLASSES]
    values = []
    for own in (labels, CLASSES, torch.tensor(labels)):
        features = FeatureSet.from_arrays(POINTS, own)
        (row,) = evaluate(features, label_map="mod:2", metrics=("nc1",), views=(), bootstrap=0).rows
        values.append((row.value("nc1", split="train"), row.super_class))
    assert values[0] == values[1] == values[2]
    assert values[0][1] == (0, 1, 0, 1)


@pytest.mark.parametrize("name", SPARSE)
def test_clusters_and_probes_get_the_ranks_of_sparse_ids(name, monkeypatch):
    class Reached(Exception):
        pass

    def reached(networks, views, **_):
        (examples,) = networks
        np.testing.assert_array_equal(examples.fine["train"], CLASSES)
        np.testing.assert_array_equal(examples.fine["test"], CLASSES[::-1])
        assert examples.super_class == (0, 1, 0, 1)
        raise Reached

    monkeypatch.setattr(clp, "cluster_networks", reached)
    labels = SPARSE[name][CLASSES]
    with pytest.raises(Reached):
        cluster_and_linear_probe(POINTS, labels, POINTS, labels[::-1], [0, 1, 0, 1])


@pytest.mark.parametrize("name", BAD)
def test_other_labels_of_features_are_refused_in_one_line(name, tmp_path):
    labels, message = BAD[name]
    doors = [lambda: FeatureSet.from_arrays(POINTS, labels)]
    doors += [lambda: cluster_and_linear_probe(POINTS, labels, POINTS, CLASSES, "mod:2")]
    if name not in ("ragged", "objects"):
        np.savez(tmp_path / "a.npz", features=POINTS, labels=labels)
        doors += [lambda: FeatureSet.open(tmp_path / "a.npz")]
    for door in doors:
        with pytest.raises(UserError, match=message) as error:
            door()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in SPARSE if not name.startswith("float")])
def test_images_of_sparse_ids_have_them_as_class_names(name, tmp_path):
    labels = SPARSE[name][CLASSES]
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=labels, x_test=IMAGES[:8], y_test=labels[:8])
    made = Dataset.from_arrays(IMAGES, labels, IMAGES[:8], labels[:8])
    for dataset in (made, load_dataset(DataConfig(source="npz", path=str(tmp_path / "a.npz")))):
        np.testing.assert_array_equal(dataset.train.labels, CLASSES)
        np.testing.assert_array_equal(dataset.test.labels, CLASSES[:8])
        assert dataset.class_names == names_of(SPARSE[name])


@pytest.mark.parametrize("name", BAD)
def test_other_labels_of_images_are_refused_in_one_line(name, tmp_path):
    labels, _ = BAD[name]
    doors = [lambda: Dataset.from_arrays(IMAGES, labels, IMAGES, CLASSES, name="mine")]
    if name not in ("ragged", "objects"):
        np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=labels, x_test=IMAGES, y_test=CLASSES)
        doors += [lambda: load_dataset(DataConfig(source="npz", path=str(tmp_path / "a.npz")))]
    for door in doors:
        with pytest.raises(UserError, match=r"must be integers|must start at 0|y_train is no array") as error:
            door()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [np.where(CLASSES == 3, 2**32 + 3, CLASSES), np.where(CLASSES == 3, 4, CLASSES)])
def test_labels_beyond_the_class_names_are_refused(labels):
    names = ("a", "b", "c", "d")
    for door in (
        lambda: FeatureSet.from_arrays(POINTS, labels, class_names=names),
        lambda: Dataset.from_arrays(IMAGES, labels, IMAGES, CLASSES, class_names=names),
    ):
        with pytest.raises(UserError, match=f"label {labels.max()} is out of range: there are 4 class names"):
            door()


@pytest.mark.parametrize("coarse", [
    [0, 1, 0, 2**40], [0.5, 1, 0, 1], ["0", "1", "0", "1"], [0, 1, None, 1], [0, -1, 0, -1], [[0, 1], [0, 1]],
    [True] * 4, [0, 2, 0, 2], [], 3, {"a": 1}, [1e20, 0, 0, 0],
])  # fmt: skip
def test_coarse_labels_that_are_none_are_refused_in_one_line(coarse, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(coarse))
    doors = [lambda: LabelMap.from_json(path, "abcd")]
    doors += [lambda: LabelMap.merge(coarse)] if isinstance(coarse, list) else []
    doors += [lambda: evaluate(FeatureSet.from_arrays(POINTS, CLASSES), label_map=f"file:{path}")]
    for door in doors:
        with pytest.raises(UserError, match=r"label map|coarse labels") as error:
            door()
        assert "\n" not in str(error.value)


def test_a_label_map_of_a_file_speaks_of_the_ids(tmp_path):
    ids = SPARSE["equal modulo int32"]
    path = tmp_path / "map.json"
    path.write_text(json.dumps({str(value): "even" if i % 2 == 0 else "odd" for i, value in enumerate(ids)}))
    features = FeatureSet.from_arrays(POINTS, ids[CLASSES])
    (row,) = evaluate(features, label_map=f"file:{path}", metrics=("nc1",), views=(), bootstrap=0).rows
    assert row.super_class == (0, 1, 0, 1)


def test_a_label_map_of_more_classes_than_there_are_ids_is_refused():
    features = FeatureSet.from_arrays(POINTS, SPARSE["one far away"][CLASSES])
    with pytest.raises(UserError, match=r"the label map has 10 classes, but the labels have 4: 0, 1, 2, \.\.\."):
        evaluate(features, label_map=[0, 1] * 5)
