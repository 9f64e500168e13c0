# SPDX-License-Identifier: Apache-2.0
"""The table of data sources, and `load_dataset`, which resolves their names."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.cifar import CIFAR10, CIFAR100
from ncjax.data.cuts import cut_array, evaluation_cut
from ncjax.data.dataset import Dataset, Split, check_classes, check_dataset, subset
from ncjax.data.digits import DIGITS, SHIFTED_DIGITS
from ncjax.data.folder import IMAGE_FOLDER
from ncjax.data.held_out import name_validation, split_off_validation
from ncjax.data.hierarchy import find_hierarchy
from ncjax.data.idx import FASHION_MNIST, IDX
from ncjax.data.npz import NPZ
from ncjax.data.source import Source
from ncjax.data.tfds import TFDS
from ncjax.errors import UserError
from ncjax.events import stage
from ncjax.tables import find_named

SOURCES: dict[str, Source] = {
    "digits": DIGITS,
    "shifted_digits": SHIFTED_DIGITS,
    "image_folder": IMAGE_FOLDER,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "fashion_mnist": FASHION_MNIST,
    "idx": IDX,
    "npz": NPZ,
    "tfds": TFDS,
}


def load_dataset(config: DataConfig | str) -> Dataset:
    """Reads a data set, checks it and takes the subsets and the validation split that the config asks for.

    Example:
        >>> dataset = load_dataset("digits")
        >>> dataset.train.images.shape, dataset.train.images.dtype
        ((1433, 8, 8, 1), dtype('uint8'))

    Args:
        config: source, path and size; or the name of a source that needs no path.

    Raises:
        UserError: the source is unknown; a file is missing, truncated, corrupt or of another kind (it is named); or the
            splits do not match.
    """
    config = DataConfig(source=config) if isinstance(config, str) else config
    source = find_named(SOURCES, config.source, "data.source")
    if config.test_fraction and not source.splits:
        able = ", ".join(name for name, one in SOURCES.items() if one.splits)
        raise UserError(f"data.test_fraction must be 0 for data.source {config.source}; it is for {able}")
    for name, asked in (("test_split", config.test_split != "test"), ("crop_scale", config.crop_scale)):
        if asked and source.stream is None:
            able = ", ".join(name for name, one in SOURCES.items() if one.stream)
            raise UserError(f"data.{name} is not for data.source {config.source}, but for {able}; leave it out")
    if config.classes and source is not IMAGE_FOLDER:
        raise UserError(f"data.classes is not for data.source {config.source}, but for image_folder; leave it out")
    with stage("load data", config.source):
        dataset = _read(source, config)
    if config.validation_fraction:
        dataset = name_validation(dataset, config.validation_fraction)
    for note in dataset.notes:
        logging.getLogger(__name__).warning("%s: %s", dataset.name, note)
    return check_classes(_with_hierarchy(dataset, config))


def _read(source: Source, config: DataConfig) -> Dataset:
    streamed = source.stream(config) if config.streamed and source.stream else None
    if streamed is not None:
        return check_dataset(streamed)
    dataset = source.read(config)
    dataset = check_dataset(dataset if source.stream else _cut(dataset, config))
    train = subset(dataset.train, config.train_examples, "train")
    test = subset(dataset.test, config.test_examples, "test")
    whole = dataclasses.replace(dataset, train=train, test=test)
    return split_off_validation(whole, config.validation_fraction) if config.validation_fraction else whole


def _cut(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with what the config takes of its images."""
    size, resize = config.image_size, config.resize
    sizes = {split.images.shape[1:3] for split in (dataset.train, dataset.test)}
    if size == 0 or (sizes == {(size, size)} and resize in (0, size)):
        return dataset
    train, test = (
        Split(
            images=np.stack([cut_array(image, evaluation_cut(config)) for image in split.images[:]]),
            labels=split.labels,
        )
        for split in (dataset.train, dataset.test)
    )
    return dataclasses.replace(dataset, train=train, test=test)


def _with_hierarchy(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with the super-classes that a file in its folder gives, else with its own."""
    root = Path(config.path).expanduser()
    of_more = bool(config.classes)
    found = find_hierarchy(root, dataset.class_names, of_more=of_more) if config.path and root.is_dir() else ()
    return dataclasses.replace(dataset, super_classes=found) if found else dataset
