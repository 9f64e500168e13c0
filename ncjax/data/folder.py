# SPDX-License-Identifier: Apache-2.0
"""Image folders: `train/<class>/**` and `test/<class>/**`; or one split, of which a share becomes the test split."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from ncjax.config import DataConfig
from ncjax.data.cache import cached, fingerprint, with_options
from ncjax.data.cuts import Cut, evaluation_cut, training_cut
from ncjax.data.dataset import Dataset, Reader, Split
from ncjax.data.held_out import held_out_note, hold_out
from ncjax.data.hierarchy import NAMES as HIERARCHIES
from ncjax.data.label_maps import kept_classes
from ncjax.data.pictures import decode, is_grey, is_picture
from ncjax.data.source import Source, source_cache, source_folder
from ncjax.data.streamed import stream_dataset
from ncjax.errors import UserError
from ncjax.storage.bounded import check_memory

SPLITS = ("train", "test")


class Listing(NamedTuple):
    """The pictures of an image folder.

    Attributes:
        files: of each split, class after class.
        labels: their classes, in alphabetical order of the names.
        classes: the names.
        notes: what was skipped or split off.
    """

    files: Mapping[str, tuple[Path, ...]]
    labels: Mapping[str, Int32[np.ndarray, "_"]]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def all_files(self) -> tuple[Path, ...]:
        """Those of the training split, then those of the test split."""
        return tuple(file for split in SPLITS for file in self.files[split])


class _Found(NamedTuple):
    """The pictures of one split by class, and what else lies there."""

    pictures: Mapping[str, tuple[Path, ...]]
    skipped: tuple[Path, ...]


def list_folder(root: Path, test_fraction: float = 0.0, test_split: str = "test", classes: str = "") -> Listing:
    """All pictures of both splits, in the order in which they are read, those in sub-folders of a class included.

    Args:
        root: holds `train` and `test`; with a test fraction `train` alone, or the class folders themselves.
        test_fraction: as for `hold_out`; 0: the folder has a test split.
        test_split: name of its folder.
        classes: those that are kept, as for `kept_classes`.

    Raises:
        UserError: a split or a class folder is missing, empty, or only in one split; a link leads nowhere; or there is
            a test split and a test fraction.
    """
    if test_fraction:
        return _list_and_split(root, test_fraction, classes)
    folders = {"train": root / "train", "test": root / test_split}
    found = {split: _find(folder, classes) for split, folder in folders.items()}
    for one, other in (SPLITS, SPLITS[::-1]):
        missing = sorted(set(found[one].pictures) - set(found[other].pictures))
        if missing:
            lacking, has = folders[other] / missing[0], folders[one].name
            raise UserError(f"class folder {lacking} is missing, but {has} has that class; add it")
    files = {split: tuple(p for one in found[split].pictures.values() for p in one) for split in SPLITS}
    labels = {split: _labels(found[split]) for split in SPLITS}
    skipped = tuple(path for split in SPLITS for path in found[split].skipped)
    return Listing(files, labels, tuple(found["train"].pictures), _notes(root, skipped))


def _list_and_split(root: Path, fraction: float, classes: str) -> Listing:
    if (root / "test").is_dir():
        raise UserError(f"{root} has a test split, so data.test_fraction must be 0, not {fraction}")
    base = root / "train" if (root / "train").is_dir() else root
    found = _find(base, classes)
    files = tuple(path for one in found.pictures.values() for path in one)
    labels, names = _labels(found), tuple(found.pictures)
    held = hold_out(labels, fraction, names)
    rows = {"train": np.flatnonzero(~held), "test": np.flatnonzero(held)}
    beside = [path for path in _entries(root) if base != root and path != base and path.is_dir()]
    unread = tuple(f"Folder {path.name} was not read, but train alone." for path in beside)
    notes = (*unread, *_notes(root, found.skipped), held_out_note(held, fraction))
    parts = {split: tuple(files[row] for row in rows[split]) for split in SPLITS}
    return Listing(parts, {split: labels[rows[split]] for split in SPLITS}, names, notes)


def _find(folder: Path, classes: str) -> _Found:
    if not folder.is_dir():
        raise UserError(
            f"folder {folder} is missing; an image folder holds train/<class>/* and test/<class>/*, "
            "data.test_split names another folder than test, such as val, and data.test_fraction, such as 0.2, makes a "
            "test split where there is none"
        )
    entries = [path for path in _entries(folder) if path.name not in HIERARCHIES]
    folders = [path for path in entries if path.is_dir() and not path.name.startswith(".")]
    others = set(entries) - set(folders)
    pictures, skipped = {}, [path for path in entries if path in others]
    kept = set(kept_classes(classes, tuple(path.name for path in folders)))
    for path in (path for path in folders if path.name in kept):
        if not _is_text(path.name):
            raise UserError(f"the name of class folder {str(path)!r} is no text in UTF-8; rename it")
        files = [(file, _is_read(file)) for file in _walk(path, frozenset())]
        pictures[path.name] = tuple(file for file, read in files if read)
        skipped += [file for file, read in files if not read]
        if not pictures[path.name]:
            raise UserError(f"class folder {path} holds no images")
    if not pictures:
        raise UserError(f"folder {folder} holds no class folders; an image folder holds train/<class>/*")
    return _Found(pictures, tuple(skipped))


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """The files of a folder and of the folders in it; a hidden folder counts as a file."""
    here = folder.resolve()
    if here in above:
        raise UserError(f"{folder} is a link to a folder that it lies in; remove the link")
    for path in _entries(folder):
        if path.is_dir() and not path.name.startswith("."):
            yield from _walk(path, above | {here})
        else:
            yield path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def _is_read(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to {path.readlink()}, which is not there; fetch the file or remove the link")
    return path.is_file() and is_picture(path)


def _labels(found: _Found) -> Int32[np.ndarray, "_"]:
    counts = [len(files) for files in found.pictures.values()]
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def _notes(root: Path, skipped: tuple[Path, ...]) -> tuple[str, ...]:
    if not skipped:
        return ()
    example = os.fsencode(skipped[0].relative_to(root)).decode("utf-8", "replace")
    reason = "hidden, no pictures, or in no class folder"
    return (f"Files that were skipped ({reason}): {len(skipped)}, such as {example}.",)


def open_folder(listing: Listing, config: DataConfig) -> dict[str, Reader]:
    """Readers of both splits: all pictures as grey, or where one has colours all as colour.

    Args:
        listing: of `list_folder`.
        config: its cuts.

    Raises:
        UserError: a file is no picture that can be read, or differs in size from the first; the file is named. The
            readers raise the same.
    """
    first, cut = listing.files["train"][0], evaluation_cut(config)
    channels = 1 if all(map(is_grey, listing.all_files)) else 3
    shape = decode(first, channels, cut).shape

    def reader(split: str) -> Reader:
        names = np.array([os.fsencode(file) for file in listing.files[split]])
        pictures = _Pictures(names, listing.labels[split], channels, shape, first)
        crop = partial(_crop, pictures, config) if config.crop_scale else None
        return Reader(name=split, count=len(names), read=partial(_read_row, pictures, cut), shape=shape, crop=crop)

    return {split: reader(split) for split in SPLITS}


class _Pictures(NamedTuple):
    """What reads the pictures of a split; quick to pickle."""

    names: np.ndarray  # of the files, as bytes
    labels: Int32[np.ndarray, "_"]
    channels: int
    shape: tuple[int, ...]  # of every image that is read
    first: Path  # the file that has it

    def file(self, row: int) -> Path:
        return Path(os.fsdecode(self.names[row]))


def _read_row(pictures: _Pictures, cut: Cut, row: int) -> tuple[UInt8[np.ndarray, "h w ch"], int]:
    file, shape = pictures.file(row), pictures.shape
    pixels = decode(file, pictures.channels, cut)
    if pixels.shape != shape:
        sizes = f"{pixels.shape[1]} x {pixels.shape[0]} pixels, but {pictures.first} is {shape[1]} x {shape[0]}"
        raise UserError(f"{file} is {sizes}; make all images one size, or set data.image_size")
    return pixels, int(pictures.labels[row])


def _crop(pictures: _Pictures, config: DataConfig, row: int, rng: np.random.Generator) -> UInt8[np.ndarray, "h w ch"]:
    return decode(pictures.file(row), pictures.channels, training_cut(config, rng))


def read_folder(root: Path, listing: Listing, fingerprint: str, config: DataConfig) -> Dataset:
    """Decode the pictures that `list_folder` found; classes are numbered in alphabetical order.

    Raises:
        UserError: as `open_folder`, or all pictures together do not fit in memory.
    """
    readers = open_folder(listing, config)
    pixels = sum(reader.count * math.prod(reader.shape) for reader in readers.values())
    check_memory(pixels, f"{root}: all images together", "set data.streamed or a smaller data.image_size")
    train, test = (_decoded(readers[split]) for split in SPLITS)
    return Dataset(name=root.name, train=train, test=test, class_names=listing.classes, fingerprint=fingerprint)


def _decoded(reader: Reader) -> Split:
    with ThreadPoolExecutor() as pool:
        images, labels = zip(*pool.map(reader.read, range(reader.count)), strict=True)
    return Split(images=np.stack(images), labels=np.array(labels, np.int32))


def _read(config: DataConfig) -> Dataset:
    root = source_folder(config)
    listing = list_folder(root, config.test_fraction, config.test_split, config.classes)
    key = with_options(fingerprint(root, listing.all_files), config)
    dataset = cached(source_cache(config), key, lambda: read_folder(root, listing, key, config))
    return dataclasses.replace(dataset, notes=listing.notes)


def _stream(config: DataConfig) -> Dataset:
    root = source_folder(config)
    listing = list_folder(root, config.test_fraction, config.test_split, config.classes)
    readers = open_folder(listing, config)
    dataset = stream_dataset(config, root.name, listing.classes, readers, root, listing.all_files)
    return dataclasses.replace(dataset, notes=listing.notes)


IMAGE_FOLDER = Source(
    read=_read,
    stream=_stream,
    splits=True,
    summary="image files, a folder for each class",
    needs="the folder with train/<class>/ and test/<class>/",
)
