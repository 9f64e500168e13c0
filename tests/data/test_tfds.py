# SPDX-License-Identifier: Apache-2.0
"""The tfds source against sets prepared here in array_record files, as `ncjax data fetch tfds:NAME` writes them."""

import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.data.tfds import prepare_tfds, prepared_sets
from ncjax.errors import UserError

NAMES = ["ant", "bee", "cow"]
FEATURES = {"image": tfds.features.Image(shape=(5, 4, 3)), "label": tfds.features.ClassLabel(names=NAMES)}


def rows_of(count, seed, shape=(5, 4, 3), classes=3):
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return [{"image": image, "label": i % classes} for i, image in enumerate(images)]


def prepare(folder, splits, features=FEATURES):
    """Write a set as TFDS does, in shards of four; PNG is encoded here, since TFDS needs TensorFlow for that alone."""
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=folder.parent.name, version=tfds.core.Version(folder.name), data_dir=str(folder), module_name="here"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=4, file_format="array_record")
    writer.initialize_splits(list(splits))
    for split, rows in splits.items():
        writer.add_examples({split: [row | {"image": Image.fromarray(row["image"].squeeze())} for row in rows]})
    writer.close_all()


@pytest.fixture
def animals(tmp_path):
    rows = {"train": rows_of(10, seed=0), "test": rows_of(6, seed=1)}
    prepare(tmp_path / "sets" / "animals" / "1.0.0", rows)
    return config_of(tmp_path), tmp_path / "sets" / "animals" / "1.0.0", rows


def config_of(root, name="animals"):
    return DataConfig(source="tfds", tfds_name=name, path=str(root / "sets"), cache_dir=str(root / "cache"))


def refused(config, *parts):
    with pytest.raises(UserError) as error:
        load_dataset(config)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["animals", "animals:1.0.0"])
def test_prepared_set_is_read(animals, name):
    config, _, rows = animals
    dataset = load_dataset(dataclasses.replace(config, tfds_name=name))
    assert dataset.name == "animals"
    assert dataset.class_names == tuple(NAMES)
    for split, expected in ((dataset.train, rows["train"]), (dataset.test, rows["test"])):
        np.testing.assert_array_equal(split.images, [row["image"] for row in expected])
        np.testing.assert_array_equal(split.labels, [row["label"] for row in expected])


def test_set_that_tfds_knows_is_read(tmp_path):
    rows = rows_of(30, seed=0, shape=(28, 28, 1), classes=10)
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    version = str(tfds.builder_cls("mnist").VERSION)
    prepare(tmp_path / "sets" / "mnist" / version, {"train": rows, "test": rows[:10]}, features)
    dataset = load_dataset(config_of(tmp_path, "mnist"))
    assert dataset.class_names == tuple("0123456789")
    np.testing.assert_array_equal(dataset.train.images, [row["image"] for row in rows])


def test_reading_imports_no_tensorflow(animals, tmp_path):
    config, _, _ = animals
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    code = f"""
import sys
from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.data.tfds import prepare_tfds, prepared_sets
assert load_dataset({config!r}).train.images.shape == (10, 5, 4, 3)
assert "tensorflow" not in sys.modules
"""
    found = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": found}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_set_is_decoded_once_and_again_when_its_content_changes(animals, monkeypatch):
    config, folder, _ = animals
    first = load_dataset(config)
    with monkeypatch.context() as patched:
        patched.setattr("ncjax.data.tfds.read_tfds", lambda *args: pytest.fail("decoded again"))
        again = load_dataset(config)
    np.testing.assert_array_equal(again.train.images, first.train.images)
    assert (again.class_names, again.fingerprint) == (first.class_names, first.fingerprint)
    shutil.rmtree(folder)
    changed = {"train": rows_of(10, seed=0), "test": rows_of(6, seed=2)}
    prepare(folder, changed)
    np.testing.assert_array_equal(load_dataset(config).test.images, [row["image"] for row in changed["test"]])


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "short", "header", "record", "end"])
def test_broken_record_file_is_named(animals, damage):
    config, folder, _ = animals
    file = folder / "animals-train.array_record-00001"
    content = file.read_bytes()
    record = content.index(b"\x89PNG") + 100
    file.unlink()
    if damage != "missing":
        changed = {
            "empty": b"",
            "text": b"hello" * 20000,
            "short": content[: len(content) // 2],
            "header": content[:70] + b"xxx" + content[73:],
            "record": content[:record] + b"xxx" + content[record + 3 :],
            "end": content[:-100],
        }[damage]
        assert changed != content
        file.write_bytes(changed)
    refused(config, "TFDS set 'animals'", str(file), "prepare the set again")


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("damage", ["missing", "text"])
def test_broken_description_is_explained(animals, file, damage):
    config, folder, _ = animals
    (folder / file).unlink()
    if damage == "text":
        (folder / file).write_text("{")
    refused(config, "TFDS set 'animals'", f"prepare it with: ncjax data fetch tfds:animals --data-dir {config.path}")


@pytest.mark.parametrize("name", ["animals", "mnist", "cifar10:3.0.2", "no such name"])
def test_set_that_is_not_prepared_is_explained(tmp_path, name):
    config = config_of(tmp_path, name)
    refused(config, f"TFDS set {name!r}", f"prepare it with: ncjax data fetch tfds:{name} --data-dir {config.path}")


def test_set_that_needs_tensorflow_names_the_extra(animals, monkeypatch):
    config, folder, _ = animals
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    advice = "is in tfrecord files, which only TensorFlow reads: pip install 'ncjax[tensorflow]'"
    refused(config, f"TFDS set 'animals' {advice}")
    with pytest.raises(UserError, match=r"^preparing a TFDS set needs TensorFlow: pip install 'ncjax\[tensorflow\]'"):
        prepare_tfds("animals", config.path)


def test_prepared_sets_are_found_without_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert prepared_sets() == ()
    for folder in ("mnist/3.0.1", "cifar10_corrupted/fog_1/1.0.0", "downloads/manual"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("mnist/3.0.1", "cifar10_corrupted/fog_1/1.0.0"):
        (tmp_path / folder / "dataset_info.json").write_text("{}")
    assert prepared_sets() == ("cifar10_corrupted/fog_1/1.0.0", "mnist/3.0.1")


def test_set_without_a_test_split_is_refused(tmp_path):
    prepare(tmp_path / "sets" / "animals" / "1.0.0", {"train": rows_of(3, seed=0)})
    refused(config_of(tmp_path), "TFDS set 'animals'", "no split 'test'", "its splits are train")


@pytest.mark.parametrize(
    ("features", "missing"),
    [
        ({"image": FEATURES["image"]}, "label"),
        (FEATURES | {"label": tfds.features.Scalar(np.int64)}, "label"),
        ({"picture": FEATURES["image"], "label": FEATURES["label"]}, "image"),
        (FEATURES | {"image": tfds.features.Image(shape=(5, 4, 3), dtype=np.uint16)}, "image"),
    ],
)
def test_set_without_a_feature_is_refused(animals, features, missing):
    config, folder, _ = animals
    tfds.features.FeaturesDict(features).save_config(folder)
    refused(config, "TFDS set 'animals'", f"no feature {missing!r}", "ncjax reads image and label")


def test_images_of_several_sizes_are_refused(tmp_path):
    features = FEATURES | {"image": tfds.features.Image(shape=(None, None, 3))}
    rows = rows_of(3, seed=0) + rows_of(3, seed=1, shape=(6, 4, 3))
    prepare(tmp_path / "sets" / "animals" / "1.0.0", {"train": rows, "test": rows}, features)
    refused(config_of(tmp_path), "TFDS set 'animals'", "split train: images are (5, 4, 3) and (6, 4, 3)")
