# SPDX-License-Identifier: Apache-2.0
"""A streamed run beside the resident one on the same data: the same numbers, bit for bit."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.features import extract
from ncjax.train.loop import prepare, train
from tests.data.test_tfds import prepare as prepare_tfds
from tests.train.test_train import assert_same, records

FOUR = {"labels": ("mod:5", "fine"), "seeds": 2}


@pytest.fixture(params=["npz", "folder", "tfds"])
def data(request, dataset, tmp_path):
    """The bars of `dataset` in files of one kind, as a config."""
    root = tmp_path / "data"
    augmented = {"crop_padding": 1, "flip": True, "cache_dir": str(tmp_path / "cache")}
    splits = {"train": dataset.train, "test": dataset.test}
    if request.param == "npz":
        arrays = {
            f"{kind}_{name}": getattr(s, part)
            for name, s in splits.items()
            for kind, part in (("x", "images"), ("y", "labels"))
        }
        np.savez(tmp_path / "data.npz", **arrays)
        return DataConfig(source="npz", path=str(tmp_path / "data.npz"), **augmented)
    if request.param == "folder":
        for name, split in splits.items():
            for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                (root / name / str(label)).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[..., 0]).save(root / name / str(label) / f"{i:03}.png")
        return DataConfig(source="image_folder", path=str(root), **augmented)
    features = {"image": tfds.features.Image(shape=(10, 6, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    rows = {
        n: [{"image": x, "label": int(y)} for x, y in zip(s.images, s.labels, strict=True)] for n, s in splits.items()
    }
    prepare_tfds(root / "bars" / "1.0.0", rows, features)
    return DataConfig(source="tfds", tfds_name="bars", path=str(root), **augmented)


def ended(config, workdir, on_epoch=lambda epoch, state: None):
    """Metrics without times, the last state, and its features."""
    workdir.mkdir(exist_ok=True)
    dataset = load_dataset(config.data)
    run = prepare(config, dataset)
    outcome = train(run, workdir, on_epoch)
    return [{**line, "wall_secs": 0} for line in records(workdir)], outcome.state, extract(run, outcome.state, dataset)


def assert_equal_runs(one, other):
    assert one[0] == other[0]
    assert_same(one[1], other[1])
    assert_same(one[2], other[2])


def streamed(config):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, streamed=True))


@pytest.mark.parametrize("mesh", [(1, 1), pytest.param((2, 4), marks=pytest.mark.slow)])
def test_streamed_run_equals_the_resident_one(config, data, with_mesh, tmp_path, mesh):
    config = with_mesh(dataclasses.replace(config, data=data, **FOUR), *mesh)
    assert_equal_runs(ended(config, tmp_path / "resident"), ended(streamed(config), tmp_path / "streamed"))
