# SPDX-License-Identifier: Apache-2.0
"""Image folders as people have them, read whole and streamed."""

import dataclasses
import logging
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.data.folder import list_folder
from ncjax.errors import UserError

RNG = np.random.default_rng(0)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colour(value):
    return np.broadcast_to(np.array([value, 0, 255 - value], np.uint8), (6, 5, 3)).copy()


@pytest.fixture
def root(tmp_path):
    """Two classes; the red of each picture is its number."""
    number = 0
    for split, count in (("train", 4), ("test", 2)):
        for name in ("ant", "bee"):
            for i in range(count):
                save(tmp_path / "set" / split / name / f"{i}.png", colour(number))
                number += 1
    return tmp_path / "set"


@pytest.fixture
def load(tmp_path):
    root = tmp_path / "set"

    def both(**options):
        """The data set, read whole after a look that streaming gives the same."""
        config = DataConfig(source="image_folder", path=str(root), cache_dir=str(root.parent / "cache"), **options)
        whole, streamed = load_dataset(config), load_dataset(dataclasses.replace(config, streamed=True))
        assert (whole.class_names, whole.notes) == (streamed.class_names, streamed.notes)
        assert whole.super_classes == streamed.super_classes
        for ours, theirs in ((whole.train, streamed.train), (whole.test, streamed.test)):
            np.testing.assert_array_equal(ours.images, theirs.images[:])
            np.testing.assert_array_equal(ours.labels, theirs.labels)
        return whole

    return both


def refused(root, message, **options):
    for streamed in (False, True):
        with pytest.raises(UserError, match=message) as error:
            load_dataset(
                DataConfig(
                    source="image_folder", path=str(root), cache_dir=str(root / ".cache"), streamed=streamed, **options
                )
            )
        assert "\n" not in str(error.value)


def test_a_folder_without_oddities_has_no_notes(root, load):
    dataset = load()
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], range(8))
    assert dataset.notes == ()


@pytest.mark.parametrize("place", ["train/ant/0.png", "train/bee/3.png", "test/ant/0.png", "test/bee/1.png"])
def test_a_grey_picture_among_colours_leaves_the_colours(load, root, place):
    save(root / place, np.full((6, 5), 90, np.uint8))
    dataset = load()
    values = np.concatenate([dataset.train.images, dataset.test.images]).reshape(-1, 30, 3)
    assert (values == 90).all(axis=(1, 2)).sum() == 1
    assert (values[:, :, 0] + values[:, :, 2] == 255).all(axis=1).sum() == 11


def test_grey_pictures_of_all_kinds_have_one_channel(load, root):
    for i, path in enumerate(sorted(root.glob("*/*/*.png"))):
        deep = i % 2 == 0
        save(path, np.full((6, 5), i * (257 if deep else 1), np.uint16 if deep else np.uint8))
    assert load().train.images.shape == (8, 6, 5, 1)


def test_pictures_in_sub_folders_are_read_and_belong_to_the_class(load, root):
    for i in range(30):
        save(root / "train" / "ant" / f"day{i % 3}" / "more" / f"{i}.png", colour(100 + i))
    dataset = load()
    assert np.bincount(dataset.train.labels).tolist() == [34, 4]
    found = dataset.train.images[dataset.train.labels == 0][:, 0, 0, 0]
    assert sorted(found.tolist()) == [*range(4), *range(100, 130)]


def test_what_is_skipped_is_counted_and_said(load, root, caplog):
    for name in (
        "train/ant/Thumbs.db",
        "train/ant/.DS_Store",
        "train/bee/._0.png",
        "train/notes.txt",
        "test/bee/a.csv",
    ):
        (root / name).write_bytes(b"\0text")
    save(root / "train" / "loose.png", colour(1))
    save(root / "train" / ".trash" / "1.png", colour(1))
    save(root / "test" / "ant" / ".old" / "1.png", colour(1))
    os.mkfifo(root / "train" / "ant" / "pipe")
    with caplog.at_level(logging.WARNING):
        dataset = load()
    assert len(dataset.train.labels) == 8
    assert len(dataset.notes) == 1
    assert dataset.notes[0].startswith(
        "Files that were skipped (hidden, no pictures, or in no class folder): 9, such as train/"
    )
    assert any(dataset.notes[0] in record.getMessage() for record in caplog.records)


def test_a_picture_without_a_suffix_is_read(load, root):
    (root / "train" / "ant" / "0.png").rename(root / "train" / "ant" / "0")
    assert (len(load().train.labels), load().notes) == (8, ())


def test_names_that_are_no_text_are_skipped_or_refused(load, root):
    (root / "train" / "ant" / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    assert load().notes[0].encode().endswith("ant/caf\ufffd.txt.".encode())
    (root / "train" / "ant" / "0.png").rename(root / "train" / "ant" / os.fsdecode(b"\xe9.png"))
    assert len(load().train.labels) == 8
    (root / "train" / "bee").rename(root / "train" / os.fsdecode(b"b\xe9e"))
    refused(root, "is no text in UTF-8; rename it")


def test_links_are_followed_and_dangling_ones_refused(load, root, tmp_path):
    shutil.move(root / "train" / "bee", tmp_path / "elsewhere")
    (root / "train" / "bee").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "ant" / "more").symlink_to(tmp_path / "elsewhere")
    assert np.bincount(load().train.labels).tolist() == [8, 4]
    (root / "train" / "ant" / "9.png").symlink_to("/mnt/gone/9.png")
    refused(root, r"train/ant/9\.png is a link to /mnt/gone/9\.png, which is not there")


def test_a_link_to_itself_and_one_to_a_folder_above_are_refused(root):
    (root / "train" / "ant" / "again").symlink_to(root / "train" / "ant")
    refused(root, "ant/again is a link to a folder that it lies in")
    (root / "train" / "ant" / "again").unlink()
    (root / "train" / "ant" / "self.png").symlink_to("self.png")
    refused(root, r"self\.png is a link to self\.png, which is not there")


@pytest.mark.parametrize("size", [(9, 5), (6, 50), (1, 1), (40, 40), (5, 6)])
def test_other_sizes_are_refused_by_name_or_resized(load, root, size):
    save(root / "test" / "bee" / "1.png", np.full((*size, 3), 77, np.uint8))
    refused(root, rf"bee/1\.png is {size[1]} x {size[0]} pixels, but .*0\.png is 5 x 6; .* data\.image_size")
    dataset = load(image_size=8)
    assert dataset.train.images.shape == (8, 8, 8, 3)
    assert (dataset.test.images[-1] == 77).all()
    assert load(image_size=4).train.images.shape == (8, 4, 4, 3)


def test_a_camera_held_upright_has_pictures_of_one_size(load, root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(colour(3))).save(root / "train" / "ant" / "3.png", exif=exif)
    np.testing.assert_array_equal(load().train.images[3], colour(3))


@pytest.mark.parametrize("damage", ["bomb", "float", "pages", "text", "format"])
def test_one_bad_picture_is_named(root, damage):
    path = root / "train" / "bee" / "1.png"
    if damage == "bomb":
        content = path.read_bytes()
        path.write_bytes(content[:16] + (10_000).to_bytes(4, "big") * 2 + content[24:])
    elif damage == "float":
        Image.fromarray(np.ones((6, 5), np.float32)).save(path, "TIFF")
    elif damage == "pages":
        pages = [Image.fromarray(colour(i)) for i in range(3)]
        pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:])
    elif damage == "text":
        path.write_text("moved to another server")
    else:
        path = path.rename(path.with_suffix(".heic"))
    refused(root, path.name)


# ------------------------------------------------------------------ a test split of a share


def numbers(split):
    return split.images[:, 0, 0, 0].tolist()


@pytest.fixture
def flat(tmp_path):
    for name, count in (("ant", 10), ("bee", 7), ("cow", 2)):
        for i in range(count):
            save(tmp_path / "set" / name / f"{i}.png", colour(50 * "abc".index(name[0]) + i))
    return tmp_path / "set"


@pytest.mark.parametrize(("fraction", "counts"), [
    (0.2, [2, 1, 1]), (0.5, [5, 4, 1]), (0.01, [1, 1, 1]), (0.99, [9, 6, 1]), (0.3, [3, 2, 1]),
])  # fmt: skip
@pytest.mark.parametrize("inside", [False, True], ids=["classes alone", "train alone"])
def test_a_share_of_each_class_is_the_test_split(flat, load, fraction, counts, inside):
    if inside:
        flat.rename(flat.parent / "moved")
        flat.mkdir()
        (flat.parent / "moved").rename(flat / "train")
    dataset = load(test_fraction=fraction)
    assert np.bincount(dataset.test.labels).tolist() == counts
    assert Counter(numbers(dataset.train) + numbers(dataset.test)) == Counter(
        [*range(10), *range(50, 57), *range(100, 102)]
    )
    assert f"{sum(counts)} of 19 images are the test split that data.test_fraction" in dataset.notes[-1]
    again = load(test_fraction=fraction)
    assert numbers(again.test) == numbers(dataset.test)
    assert [number // 50 for number in numbers(dataset.test)] == dataset.test.labels.tolist()


def test_the_split_is_what_the_documentation_says(flat):
    listing = list_folder(flat, 0.3)
    for label, count in enumerate((10, 7, 2)):
        first = np.random.default_rng([0, label]).permutation(count)[: max(1, round(0.3 * count))]
        found = [int(file.stem) for file in listing.files["test"] if file.parent.name == ("ant", "bee", "cow")[label]]
        assert sorted(found) == sorted(first.tolist())


def test_the_caches_of_other_options_are_not_taken(flat, load):
    made = [load(test_fraction=f, image_size=s) for f in (0.2, 0.5) for s in (0, 4)]
    assert len({dataset.fingerprint for dataset in made}) == 4
    assert [dataset.train.images.shape[:3] for dataset in made] == [(15, 6, 5), (15, 4, 4), (9, 6, 5), (9, 4, 4)]


def test_a_class_of_one_picture_cannot_be_split(flat):
    (flat / "cow" / "1.png").unlink()
    refused(flat, "class 'cow' has one image, but data.test_fraction needs two", test_fraction=0.2)


@pytest.mark.parametrize("fraction", [1.0, -0.1, 2.0, float("nan")])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(UserError, match=r"data\.test_fraction is .*from 0 to below 1"):
        DataConfig(test_fraction=fraction)


def test_a_fraction_where_there_is_a_test_split_is_refused(root):
    refused(root, r"has a test split, so data\.test_fraction must be 0, not 0\.2", test_fraction=0.2)
    shutil.rmtree(root / "test")
    refused(root, r"test is missing; .*data\.test_fraction, such as 0\.2, makes a test split")
    with pytest.raises(
        UserError, match=r"data\.test_fraction must be 0 for data\.source digits; it is for image_folder"
    ):
        load_dataset(DataConfig(test_fraction=0.2))


def test_folders_beside_train_are_said(root, load):
    (root / "test").rename(root / "val")
    assert "Folder val was not read, but train alone." in load(test_fraction=0.5).notes


# ------------------------------------------------------------------ super-classes


@pytest.mark.parametrize(("name", "content"), [
    ("superclasses.csv", "ant,insect\nbee,insect\n"),
    ("superclasses.csv", "class,superclass\nbee,insect\nant,insect\n"),
    ("superclasses.csv", '\ufeff"ant","insect"\r\nbee, insect\r\n'),
    ("superclasses.json", '{"ant": "insect", "bee": "insect"}'),
])  # fmt: skip
def test_a_hierarchy_by_file_gives_the_super_classes(root, load, name, content):
    (root / name).write_text(content, encoding="utf-8")
    assert load().super_classes == ("insect", "insect")
    assert load().notes == ()


def test_two_hierarchies_are_refused(root):
    for name in ("superclasses.csv", "superclasses.json"):
        (root / name).write_text("{}")
    refused(root, "keep the one that is meant")
    (root / "superclasses.csv").unlink()
    refused(root, r"superclasses\.json: class 'ant' is missing")


def test_the_classes_of_a_file_are_kept_and_another_folder_is_the_test_split(root, load):
    for i, split in enumerate(("train", "test", "train", "test")):
        save(root / split / "cow" / f"{i}.png", colour(100 + i))
    (root / "test").rename(root / "val")
    (root / "superclasses.csv").write_text("class,super_class\nant,insect\nbee,insect\ncow,mammal\n")
    (root.parent / "kept.csv").write_text("ant,insect\ncow,mammal\n")
    dataset = load(test_split="val", classes=f"file:{root.parent / 'kept.csv'}")
    assert (dataset.class_names, dataset.super_classes, dataset.notes) == (("ant", "cow"), ("insect", "mammal"), ())
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(dataset.train.images[-2:, 0, 0, 0], [100, 102])
    refused(root, r"folder .*/test is missing; .* data\.test_split names another folder than test, such as val")
    refused(root, "names class 'dog', which the data lack", test_split="val", classes=f"file:{dogs(root.parent)}")


def dogs(folder):
    (folder / "dogs.csv").write_text("ant,insect\ndog,mammal\n")
    return folder / "dogs.csv"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(test_split="val"), "data.test_split is not for data.source digits, but for image_folder, tfds"),
        (DataConfig(classes="file:a.csv"), "data.classes is not for data.source digits, but for image_folder"),
        (
            DataConfig(crop_scale=0.1, streamed=True, image_size=8),
            "data.crop_scale is not for data.source digits, but for image_folder, tfds",
        ),
    ],
)
def test_options_of_pictures_are_refused_for_arrays(config, message):
    with pytest.raises(UserError, match=message):
        load_dataset(config)
