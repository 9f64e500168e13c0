# SPDX-License-Identifier: Apache-2.0
"""A data set of labelled images, whatever it was read from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8

from ncjax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images and their fine labels, in `0..f-1`."""

    images: UInt8[np.ndarray, "n h w ch"]
    labels: Int32[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training and test split; `fingerprint` is the SHA-256 of what they were read from."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str


def check_dataset(dataset: Dataset) -> Dataset:
    """The data set itself, when its parts fit together.

    Raises:
        UserError: a split is empty, shapes differ between splits, or a label is out of range.
    """
    train, test = dataset.train, dataset.test
    names = dataset.class_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{dataset.name}: two classes are named {twice!r}; give each a name of its own")
    for name, split in (("training", train), ("test", test)):
        if not split.images[:1].size and len(split.labels):
            raise UserError(f"{dataset.name}: {name} images are {split.images.shape[1:]}, without a pixel")
        if not len(split.labels):
            raise UserError(f"{dataset.name}: the {name} split holds no images")
        if len(split.labels) != len(split.images):
            raise UserError(f"{dataset.name}: {len(split.images)} {name} images, but {len(split.labels)} labels")
        low, high, classes = split.labels.min(), split.labels.max(), len(dataset.class_names)
        if low < 0 or high >= classes:
            raise UserError(f"{dataset.name}: {name} labels run from {low} to {high}, but there are {classes} classes")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{dataset.name}: training images are {train.images.shape[1:]}, test images {test.images.shape[1:]} "
            "(height, width, channels); make them the same"
        )
    return dataset


def check_classes(dataset: Dataset) -> Dataset:
    """The data set itself, when every class has an image in both splits.

    Raises:
        UserError: a class has none; it is named.
    """
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        counts = np.bincount(split.labels, minlength=len(dataset.class_names))
        if not counts.all():
            missing = dataset.class_names[int(counts.argmin())]
            raise UserError(
                f"{dataset.name}: class {missing!r} has no {name} image; each class needs one in both splits "
                f"(is --data.{name}-examples too small?)"
            )
    return dataset


def subset(split: Split, examples: int, name: str) -> Split:
    """The first `examples` of a fixed permutation, in their old order; 0 keeps all.

    Raises:
        UserError: there are fewer.
    """
    if examples == 0:
        return split
    if examples < 0 or examples > len(split.labels):
        raise UserError(f"data.{name}_examples is {examples}, but must be from 1 to {len(split.labels)}, or 0 for all")
    rows = np.sort(np.random.default_rng(0).permutation(len(split.labels))[:examples])
    return Split(images=split.images[rows], labels=split.labels[rows])
