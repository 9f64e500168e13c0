# SPDX-License-Identifier: Apache-2.0
"""Labelled images from many kinds of files, behind one interface: `load_dataset(config) -> Dataset`."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.arrays import list_idx, read_idx, read_npz
from ncjax.data.cache import cached, fingerprint
from ncjax.data.cifar import list_cifar, read_cifar
from ncjax.data.dataset import (
    Dataset,
    Reader,
    Split,
    Streamed,
    check_classes,
    check_dataset,
    chosen_rows,
    subset,
)
from ncjax.data.folder import folder_classes, list_folder, open_folder, read_folder
from ncjax.data.streamed import stat_fingerprint, stream_split
from ncjax.data.tfds import SPLITS, list_tfds, open_rows, open_tfds, read_tfds, tfds_classes
from ncjax.errors import UserError
from ncjax.storage.caches import cache_folder

__all__ = ["Dataset", "Split", "Streamed", "load_dataset"]


def load_dataset(config: DataConfig) -> Dataset:
    """Read, check and, where asked for, thin out a data set.

    Raises:
        UserError: a file is missing, truncated, corrupt or of another kind (it is named), or splits do not match.
    """
    if config.streamed and config.source in ("image_folder", "tfds"):
        return check_classes(check_dataset(_streamed(config)))
    dataset = check_dataset(_read(config))
    train = subset(dataset.train, config.train_examples, "train")
    test = subset(dataset.test, config.test_examples, "test")
    return check_classes(dataclasses.replace(dataset, train=train, test=test))


def _read(config: DataConfig) -> Dataset:
    if config.source == "digits":
        return _digits()
    if config.source == "tfds":
        builder = _open_tfds(config)
        key = fingerprint(Path(builder.data_path), list_tfds(builder))
        return cached(_cache(config), key, lambda: read_tfds(builder, key))
    root = _existing(config)
    match config.source:
        case "image_folder":
            files = list_folder(root)
            key = fingerprint(root, files)
            return cached(_cache(config), key, lambda: read_folder(root, files, key))
        case "cifar10" | "cifar100":
            files = list_cifar(root, config.source)
            return read_cifar(files, config.source, fingerprint(root, files))
        case "idx":
            files = list_idx(root)
            return read_idx(root, files, fingerprint(root, files))
        case "npz":
            return read_npz(root, fingerprint(root.parent, [root]))


def _streamed(config: DataConfig) -> Dataset:
    """A data set whose images stay in their files."""
    if config.source == "tfds":
        builder = _open_tfds(config)
        readers = {split: open_rows(builder, split) for split in SPLITS}
        key = stat_fingerprint(Path(builder.data_path), list_tfds(builder))
        return _stream(config, builder.info.name, tfds_classes(builder), readers, key)
    root = _existing(config)
    files = list_folder(root)
    return _stream(config, root.name, folder_classes(files), open_folder(files), stat_fingerprint(root, files))


def _stream(config: DataConfig, name: str, classes: tuple[str, ...], readers: dict[str, Reader], key: str) -> Dataset:
    examples = {"train": config.train_examples, "test": config.test_examples}
    rows = {split: chosen_rows(reader.count, examples[split], split) for split, reader in readers.items()}
    splits = {split: stream_split(reader, rows[split], _cache(config), key) for split, reader in readers.items()}
    return Dataset(name=name, **splits, class_names=classes, fingerprint=key)


def _cache(config: DataConfig) -> Path:
    return Path(config.cache_dir) if config.cache_dir else cache_folder()


def _open_tfds(config: DataConfig) -> Any:
    if not config.tfds_name:
        raise UserError("data.source tfds needs a name: --data.tfds-name cifar10")
    return open_tfds(config.tfds_name, config.path)


def _existing(config: DataConfig) -> Path:
    if not config.path:
        raise UserError(f"data.source {config.source} needs a place: --data.path")
    root = Path(config.path).expanduser()
    if config.source == "npz":
        if not root.is_file():
            raise UserError(f"data.path {root} is not a file; give the npz file with --data.path")
    elif not root.is_dir():
        raise UserError(f"data.path {root} is not a folder; give the folder of the data with --data.path")
    return root.absolute()


def _digits() -> Dataset:
    """scikit-learn's 1,797 digits, 8x8 pixels, 0..16 scaled to 0..255; every fifth of a class is a test image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    held_out = np.zeros(len(labels), bool)
    for label in range(10):
        held_out[np.flatnonzero(labels == label)[::5]] = True
    train, test = (Split(images=images[rows], labels=labels[rows]) for rows in (~held_out, held_out))
    names = tuple(map(str, range(10)))
    return Dataset(name="digits", train=train, test=test, class_names=names, fingerprint="scikit-learn digits")
