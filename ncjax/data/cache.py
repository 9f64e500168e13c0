# SPDX-License-Identifier: Apache-2.0
"""Decoded arrays on disk, keyed by the content of the files that they come from."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ncjax.data.dataset import Dataset, Split
from ncjax.errors import UserError

LAYOUT = "1"  # of the cache entries; changes when decoding does


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names (from `root`) and the bytes of files, in order.

    Raises:
        UserError: a file cannot be read.
    """
    total = hashlib.sha256(LAYOUT.encode())
    for file in files:
        try:
            content = hashlib.sha256(file.read_bytes()).digest()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from error
        total.update(os.fsencode(file.relative_to(root)) + b"\0" + content)
    return total.hexdigest()


def cached(folder: Path, key: str, decode: Callable[[], Dataset]) -> Dataset:
    """What `decode` returns, from the cache where a sound entry is there; a damaged one is made again.

    A cache folder that cannot be written is an error, not a silent slow path.

    Raises:
        UserError: the cache cannot be written.
    """
    path = folder / f"{key}.npz"
    if path.exists():
        try:
            return _read(path, key)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    dataset = decode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, dataset)
    except OSError as error:
        raise UserError(f"cannot write the cache {path}: {error.strerror}; set --data.cache-dir") from error
    return dataset


def _read(path: Path, key: str) -> Dataset:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Dataset(
            name=str(arrays["name"]),
            train=Split(images=arrays["train_images"], labels=arrays["train_labels"]),
            test=Split(images=arrays["test_images"], labels=arrays["test_labels"]),
            class_names=tuple(map(str, arrays["class_names"])),
            fingerprint=key,
        )


def _write(path: Path, dataset: Dataset) -> None:
    draft = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(
        draft,
        name=dataset.name,
        class_names=np.array(dataset.class_names),
        train_images=dataset.train.images,
        train_labels=dataset.train.labels,
        test_images=dataset.test.images,
        test_labels=dataset.test.labels,
    )
    os.replace(draft, path)
