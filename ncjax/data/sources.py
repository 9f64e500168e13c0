# SPDX-License-Identifier: Apache-2.0
"""The table of data sources, and `load_dataset`, which resolves their names."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.cifar import CIFAR10, CIFAR100
from ncjax.data.dataset import Dataset, Split, check_classes, check_dataset, subset
from ncjax.data.digits import DIGITS
from ncjax.data.folder import IMAGE_FOLDER
from ncjax.data.held_out import name_validation, split_off_validation
from ncjax.data.hierarchy import find_hierarchy
from ncjax.data.idx import IDX
from ncjax.data.npz import NPZ
from ncjax.data.pictures import resize
from ncjax.data.source import Source
from ncjax.data.tfds import TFDS
from ncjax.errors import UserError
from ncjax.tables import find_named

SOURCES: dict[str, Source] = {
    "digits": DIGITS,
    "image_folder": IMAGE_FOLDER,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
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
    if config.streamed and source.stream is not None:
        dataset = check_dataset(source.stream(config))
    else:
        dataset = check_dataset(_resized(source.read(config), config.image_size))
        train = subset(dataset.train, config.train_examples, "train")
        test = subset(dataset.test, config.test_examples, "test")
        dataset = dataclasses.replace(dataset, train=train, test=test)
        if config.validation_fraction:
            dataset = split_off_validation(dataset, config.validation_fraction)
    if config.validation_fraction:
        dataset = name_validation(dataset, config.validation_fraction)
    for note in dataset.notes:
        logging.getLogger(__name__).warning("%s: %s", dataset.name, note)
    return check_classes(_with_hierarchy(dataset, config))


def _resized(dataset: Dataset, size: int) -> Dataset:
    """The data set with images of this size; 0: as they are."""
    if size == 0 or dataset.train.images.shape[1:3] == dataset.test.images.shape[1:3] == (size, size):
        return dataset
    train, test = (
        Split(images=np.stack([resize(image, size) for image in split.images[:]]), labels=split.labels)
        for split in (dataset.train, dataset.test)
    )
    return dataclasses.replace(dataset, train=train, test=test)


def _with_hierarchy(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with the super-classes that a file in its folder gives, else with its own."""
    root = Path(config.path).expanduser()
    found = find_hierarchy(root, dataset.class_names) if config.path and root.is_dir() else ()
    return dataclasses.replace(dataset, super_classes=found) if found else dataset
