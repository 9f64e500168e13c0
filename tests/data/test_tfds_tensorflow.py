# SPDX-License-Identifier: Apache-2.0
"""What TFDS itself prepares and TensorFlow reads, in processes of their own; what is decoded needs neither again."""

import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from ncjax.config import DataConfig
from ncjax.data import load_dataset, tfds
from ncjax.errors import UserError
from tests.animals import NAMES, images_of, labels_of
from tests.runs import ended, start

pytestmark = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
KNOWN = "import tests.animals_builder"
AS_TFRECORD = """
import sys
import tests.animals_builder
import tensorflow_datasets
builder = tensorflow_datasets.builder("animals", data_dir=sys.argv[1])
builder.download_and_prepare(download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False))
assert builder.info.file_format.value == "tfrecord"
sys.exit()
"""
TINY = ["--model.name", "mlp", "--model.width", 4, "--labels", "mod:2", "--seeds", 1, "--optim.epochs", 1]
TINY += ["--optim.batch", 5, "--evaluate.epochs", 1]


@pytest.fixture(autouse=True)
def without_tensorflow_here(monkeypatch):
    def refuse(why):
        raise UserError(f"{why}: not in this process")

    monkeypatch.setattr(tfds, "_import_tensorflow", refuse)


def ncjax(*arguments, before=KNOWN, **environment):
    """The last line on stderr of a command that ends, and its exit code."""
    ((code, said),) = ended([start(arguments, before=before, TF_CPP_MIN_LOG_LEVEL=3, **environment)])
    return code, (said.strip().splitlines() or [""])[-1]


def config_of(tmp_path, **changed):
    folders = {"path": str(tmp_path / "sets"), "cache_dir": str(tmp_path / "cache")}
    return DataConfig(source="tfds", tfds_name="animals", **folders, **changed)


def assert_is_animals(dataset):
    """Every example, in whatever order TFDS has put them."""
    assert dataset.class_names == NAMES
    for split, found in (("train", dataset.train), ("test", dataset.test)):
        expected = {image.tobytes(): label for image, label in zip(images_of(split), labels_of(split), strict=True)}
        assert {image.tobytes(): label for image, label in zip(found.images[:], found.labels, strict=True)} == expected


def test_a_set_is_prepared_by_the_command_that_messages_advise(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(UserError, match="prepare it with: ") as advice:
        load_dataset(config)
    verb = str(advice.value).split("prepare it with: ncjax ")[1].split()
    assert verb == ["data", "fetch", "tfds:animals", "--data-dir", config.path]
    assert ncjax(*verb)[0] == 0
    assert_is_animals(load_dataset(config))
    assert_is_animals_streamed(tmp_path)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "sets").rglob("*")}
    assert ncjax(*verb)[0] == 0  # it is there
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "sets").rglob("*")} == files


def assert_is_animals_streamed(tmp_path):
    assert_is_animals(load_dataset(config_of(tmp_path, streamed=True)))


@pytest.fixture(scope="module")
def tfrecords(tmp_path_factory):
    """A data_dir with the set as TFDS prepares it where nothing else is asked for."""
    folder = tmp_path_factory.mktemp("tfrecords") / "sets"
    assert ncjax(folder, before=AS_TFRECORD)[0] == 0
    return folder


def test_a_set_in_tfrecord_files_is_decoded_once(tfrecords, tmp_path):
    shutil.copytree(tfrecords, tmp_path / "sets")
    config, options = config_of(tmp_path), ["--data.source", "tfds", "--data.tfds-name", "animals"]
    options += ["--data.path", config.path, "--data.cache-dir", config.cache_dir]
    with pytest.raises(UserError, match="is in tfrecord files, which only TensorFlow reads: not in this process"):
        load_dataset(config)
    assert ncjax("train", "digits_demo", *TINY, *options, "--workdir", tmp_path / "run", before="")[0] == 0
    dataset = load_dataset(config)  # from the cache
    assert_is_animals(dataset)
    streamed = load_dataset(config_of(tmp_path, streamed=True))
    np.testing.assert_array_equal(streamed.train.images, dataset.train.images)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["short", "byte"])
def test_a_damaged_tfrecord_file_is_one_line(tfrecords, tmp_path, damage):
    shutil.copytree(tfrecords, tmp_path / "sets")
    (file,) = (tmp_path / "sets" / "animals" / "1.0.0").glob("animals-test.tfrecord-*")
    content = file.read_bytes()
    file.write_bytes(content[:-50] if damage == "short" else content[:300] + b"xxx" + content[303:])
    options = ["--data.source", "tfds", "--data.tfds-name", "animals", "--data.path", tmp_path / "sets"]
    options += ["--data.cache-dir", tmp_path / "cache", "--workdir", tmp_path / "run"]
    code, said = ncjax("train", "digits_demo", *TINY, *options, before="")
    assert code == 2
    assert said.startswith(f"ncjax: error: TFDS set 'animals': split test in {file.parent} cannot be read")
    assert said.endswith("prepare the set again")


@pytest.mark.slow
def test_a_set_that_tfds_does_not_know_is_one_line(tmp_path):
    code, said = ncjax("data", "fetch", "tfds:no_such_set", "--data-dir", tmp_path)
    assert code == 2
    assert said.startswith("ncjax: error: TFDS cannot prepare 'no_such_set' (")
