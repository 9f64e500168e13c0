# SPDX-License-Identifier: Apache-2.0
"""Data sets that change between the start of a run and its resume."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.data.dataset import Dataset
from ncjax.data.record import DATA, check_record, keep_record
from ncjax.errors import UserError

RNG = np.random.default_rng(0)


def picture(path, value=None):
    pixels = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8) if value is None else np.full((6, 5, 3), value, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Two classes of ten pictures, all of them one split."""
    for name in ("ant", "bee"):
        for i in range(10):
            picture(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def load(request, root, tmp_path):
    config = DataConfig(
        source="image_folder",
        path=str(root),
        cache_dir=str(tmp_path / "cache"),
        test_fraction=0.2,
        streamed=request.param,
    )
    return lambda **changes: load_dataset(dataclasses.replace(config, **changes))


def refused(workdir, dataset, part):
    before = (workdir / DATA).read_bytes()
    for compare in (check_record, keep_record):
        with pytest.raises(UserError, match=part) as error:
            compare(workdir, dataset)
        assert "\n" not in str(error.value)
        assert "delete" not in str(error.value)
    assert (workdir / DATA).read_bytes() == before


def added(root):
    picture(root / "ant" / "new.png")


def moved(root):
    (root / "ant" / "3.png").rename(root / "bee" / "03.png")


def exchanged(root):
    (root / "ant" / "3.png").rename(root / "3.png")
    (root / "bee" / "4.png").rename(root / "ant" / "3b.png")
    (root / "3.png").rename(root / "bee" / "4b.png")


CHANGES = {
    "added": (added, r"training images of class 'ant': 8 there, 9 now"),
    "removed": (lambda root: (root / "bee" / "7.png").unlink(), "images of class 'bee': 8 there, 7 now"),
    "moved": (moved, r"'ant': 8 there, 7 now; training images of class 'bee': 8 there, 9 now"),
    "exchanged": (exchanged, "as many images of each class, but of other names, order or content"),
    "renamed": (lambda root: (root / "ant" / "2.png").rename(root / "ant" / "9b.png"), "of other names"),
    "of another content": (lambda root: picture(root / "bee" / "0.png", 7), "order or content"),
    "a class added": (lambda root: shutil.copytree(root / "ant", root / "cow"), "class 'cow': 0 there, 8 now; test"),
    "a class renamed": (lambda root: (root / "ant").rename(root / "dog"), r"'ant': 8 there, 0 now; .*; and 1 more"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_folders_are_refused(root, load, tmp_path, change):
    keep_record(tmp_path / "run", load())
    make, message = CHANGES[change]
    make(root)
    refused(tmp_path / "run", load(), message)


def test_another_size_of_images_is_refused(load, tmp_path):
    keep_record(tmp_path, load())
    refused(tmp_path, load(image_size=4), r"size of training images: \(6, 5, 3\) there, \(4, 4, 3\) now")


def test_what_is_the_same_goes_on(root, load, tmp_path):
    keep_record(tmp_path / "run", load())
    for path in root.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    (root / "readme.txt").write_text("skipped")
    shutil.rmtree(tmp_path / "cache")
    keep_record(tmp_path / "run", load())
    check_record(tmp_path / "run", load())


def arrays(**changes):
    given = {"x_train": np.arange(160, dtype=np.uint8).reshape(10, 4, 4), "y_train": np.arange(10) % 2}
    given |= {"x_test": given["x_train"][:4], "y_test": given["y_train"][:4]}
    return given | changes


SAME = arrays()
EDITS = {
    "a pixel": {"x_train": SAME["x_train"] ^ np.uint8(1)},
    "a test pixel": {"x_test": SAME["x_test"] ^ np.uint8(1)},
    "order of the labels": {"y_train": 1 - SAME["y_train"]},
    "fewer": {"x_train": SAME["x_train"][:8], "y_train": SAME["y_train"][:8]},
}


@pytest.mark.parametrize("from_file", [False, True], ids=["memory", "npz"])
@pytest.mark.parametrize("edit", EDITS)
def test_changed_arrays_are_refused(tmp_path, edit, from_file):
    def load(given):
        if not from_file:
            return Dataset.from_arrays(**given)
        np.savez(tmp_path / "set.npz", **given)
        return load_dataset(DataConfig(source="npz", path=str(tmp_path / "set.npz")))

    keep_record(tmp_path, load(SAME))
    keep_record(tmp_path, load(SAME))
    refused(tmp_path, load(arrays(**EDITS[edit])), "there, .* now" if edit == "fewer" else "order or content")


def test_runs_of_earlier_versions_get_the_record(tmp_path):
    check_record(tmp_path, Dataset.from_arrays(**SAME))
    assert not (tmp_path / DATA).exists()
    keep_record(tmp_path, Dataset.from_arrays(**SAME))
    assert json.loads((tmp_path / DATA).read_text())["train"]["classes"] == {"class 0": 5, "class 1": 5}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"train": 3}', '{"files": "a"}', "\ufeff{}", "null"])
def test_a_damaged_record_is_one_line(tmp_path, text):
    (tmp_path / DATA).write_text(text)
    refused(tmp_path, Dataset.from_arrays(**SAME), r"data\.json .*move it away")
