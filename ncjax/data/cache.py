# SPDX-License-Identifier: Apache-2.0
"""Decoded arrays on disk, keyed by the content of the files that they come from."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.dataset import Dataset, Split
from ncjax.errors import UserError
from ncjax.storage.atomic import write_arrays

LAYOUT = "3"  # of the cache entries; changes when decoding does
NAMES = ("name", "class_names", "train_images", "train_labels", "test_images", "test_labels")


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names (from `root`) and the bytes of files, in order.

    Raises:
        UserError: a file cannot be read.
    """
    total = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from error
        total.update(os.fsencode(file.relative_to(root)) + b"\0" + content)
    return total.hexdigest()


def with_options(key: str, config: DataConfig) -> str:
    """The key of what the options that change decoded arrays make of the files with this key."""
    options = (config.image_size, float(config.test_fraction))
    more = (config.resize, config.test_split, config.classes)
    told = f"{options}" if more == (0, "test", "") else f"{options} {more}"
    return key if told == "(0, 0.0)" else hashlib.sha256(f"{key} {told}".encode()).hexdigest()


def cached(folder: Path, key: str, decode: Callable[[], Dataset]) -> Dataset:
    """The data set that `decode` returns; read from the cache where it holds an undamaged entry.

    Raises:
        UserError: the cache cannot be written.
    """
    return _dataset(cached_arrays(folder, key, NAMES, lambda: _arrays(decode())), key)


def cached_arrays(
    folder: Path, key: str, names: tuple[str, ...], make: Callable[[], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    """The named arrays that `make` returns; read from the cache where it holds an entry. A damaged entry is made again.

    A cache folder that cannot be written is an error, not a silent slow path.

    Raises:
        UserError: the cache cannot be written.
    """
    path = folder / f"{key}.{LAYOUT}.npz"
    if path.exists():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    made = make()
    try:
        write_arrays(path, made)
    except OSError as error:
        raise UserError(f"cannot write the cache {path}: {error.strerror}; set data.cache_dir") from error
    return made


def _arrays(dataset: Dataset) -> Mapping[str, np.ndarray]:
    return {
        "name": np.array(dataset.name),
        "class_names": np.array(dataset.class_names),
        "train_images": np.asarray(dataset.train.images),
        "train_labels": dataset.train.labels,
        "test_images": np.asarray(dataset.test.images),
        "test_labels": dataset.test.labels,
    }


def _dataset(arrays: Mapping[str, np.ndarray], key: str) -> Dataset:
    return Dataset(
        name=str(arrays["name"]),
        train=Split(images=arrays["train_images"], labels=arrays["train_labels"]),
        test=Split(images=arrays["test_images"], labels=arrays["test_labels"]),
        class_names=tuple(map(str, arrays["class_names"])),
        fingerprint=key,
    )
