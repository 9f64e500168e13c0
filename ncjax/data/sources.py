# SPDX-License-Identifier: Apache-2.0
"""The table of data sources, and `load_dataset`, which resolves their names."""

import dataclasses

from ncjax.config import DataConfig
from ncjax.data.cifar import CIFAR10, CIFAR100
from ncjax.data.dataset import Dataset, check_classes, check_dataset, subset
from ncjax.data.digits import DIGITS
from ncjax.data.folder import IMAGE_FOLDER
from ncjax.data.idx import IDX
from ncjax.data.npz import NPZ
from ncjax.data.source import Source
from ncjax.data.tfds import TFDS
from ncjax.errors import find_named

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
    """Reads a data set, checks it and takes the subsets that the config asks for.

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
    if config.streamed and source.stream is not None:
        return check_classes(check_dataset(source.stream(config)))
    dataset = check_dataset(source.read(config))
    train = subset(dataset.train, config.train_examples, "train")
    test = subset(dataset.test, config.test_examples, "test")
    return check_classes(dataclasses.replace(dataset, train=train, test=test))
