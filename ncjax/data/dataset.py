# SPDX-License-Identifier: Apache-2.0
"""A data set of labelled images, whatever it was read from."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt8
from numpy.typing import ArrayLike

from ncjax.data.labels import number_classes
from ncjax.errors import UserError, first_line
from ncjax.storage.arrays import is_tensor, tensor_to_numpy

CROPS = 0x6E636A61  # begins the seeds of random crops


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The rows of one split, as they lie in its files."""

    name: str  # for messages
    count: int
    read: Callable[[int], tuple[UInt8[np.ndarray, "h w ch"], int]]  # image and fine label of a row, from any thread
    shape: tuple[int, ...] = ()  # height, width and channels of every image; empty: not known before reading
    crop: Callable[[int, np.random.Generator], UInt8[np.ndarray, "h w ch"]] | None = None  # a random crop of a row's


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """The images of a split, without holding them: `images[rows]` reads those rows and decodes them."""

    reader: Reader
    rows: Int64[np.ndarray, "n"]  # the reader's rows that make up the split, in order
    shape: tuple[int, int, int, int]  # n h w ch
    counts: Int64[np.ndarray, "ch 256"]  # how often each value occurs in each channel

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> UInt8[np.ndarray, "b h w ch"]:
        chosen = self.rows[rows]
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for image, row in zip(images, chosen.tolist(), strict=True):
            image[:] = self.reader.read(row)[0]
        return images

    def random_crops(
        self, rows: Int64[np.ndarray, "b"], seeds: Integer[np.ndarray, "b"], epoch: int
    ) -> UInt8[np.ndarray, "b h w ch"]:
        """A random crop of each of these rows: a function of its seed, the epoch and the row."""
        assert self.reader.crop is not None
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for image, row, seed in zip(images, rows.tolist(), seeds.tolist(), strict=True):
            image[:] = self.reader.crop(int(self.rows[row]), np.random.default_rng([CROPS, seed, epoch, row]))
        return images


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images and their fine labels, in `0..f-1`."""

    images: UInt8[np.ndarray, "n h w ch"] | Streamed
    labels: Int32[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images in a training and a test split.

    Attributes:
        name: for reports and messages.
        train: split that members are trained on.
        test: split that they are tested on.
        class_names: of the `f` fine classes.
        fingerprint: SHA-256 of what the images and labels were read from; of streamed ones, of its names and sizes.
        super_classes: name of the super-class of each fine class, for the label map `superclass`; empty: not known.
        notes: what was skipped, turned or made while reading, for a person.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    super_classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_test: ArrayLike,
        y_test: ArrayLike,
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> "Dataset":
        """A data set of arrays in memory, which are checked and not copied.

        Example:
            >>> images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
            >>> dataset = Dataset.from_arrays(images, labels, images[:4], labels[:4], class_names=("even", "odd"))
            >>> dataset.train.images.shape
            (20, 8, 8, 1)

        Args:
            x_train: training images, uint8 `[n h w]` or `[n h w ch]`; `[n ch h w]` of 1, 3 or 4 channels is turned.
            y_train: their fine labels `[n]`: integers in `0..f-1`, or names; without class names, ids that leave most
                numbers out are numbered in order of size, and become the class names, as names do.
            x_test: test images, as the training images in size and channels.
            y_test: their fine labels.
            class_names: names of the `f` classes; None: `class 0`, `class 1`, ...
            name: for reports and messages.

        Raises:
            UserError: an array is of another type or shape, a label is out of range, or a class has no image.
        """
        train = Arrays(_array(x_train, f"{name}: x_train"), _array(y_train, f"{name}: y_train"), f"{name}, train")
        test = Arrays(_array(x_test, f"{name}: x_test"), _array(y_test, f"{name}: y_test"), f"{name}, test")
        names = None if class_names is None else tuple(map(str, class_names))
        return check_classes(check_dataset(join_splits(train, test, names, name)))


class Arrays(NamedTuple):
    """The arrays of a split as they came."""

    images: np.ndarray
    labels: np.ndarray
    where: str  # begins messages
    notes: tuple[str, ...] = ()  # what was done to make it


def _array(values: ArrayLike, where: str) -> np.ndarray:
    if is_tensor(values):
        return tensor_to_numpy(where, values)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(f"{where} is no array ({first_line(error)}); give rows of the same shape") from error


def join_splits(
    train: Arrays, test: Arrays, names: tuple[str, ...] | None, name: str, fingerprint: str | None = None
) -> Dataset:
    """A data set of arrays of any type, its labels as `number_classes` has them.

    Args:
        train: uint8 images `[n h w]`, `[n h w ch]`, or `[n ch h w]` as `channels_first` tells, and labels `[n]` or
            `[n 1]`: integers, or names.
        test: the same.
        names: of the classes; None: the names or ids that label, else `class 0` up to the largest training label.
        name: of the data set.
        fingerprint: None: that of the arrays.

    Raises:
        UserError: images or labels are of another type or shape, a label is negative or has no name, or there are no
            names, and a label is larger than the number of training images.
    """
    if names is not None and not names:
        raise UserError(f"class_names of {name} is empty; name each class, or leave it out")
    splits, names = name_classes((train, test), names)
    images = [_images(split) for split in splits]
    classes = number_classes({split.where: _labels(split) for split in splits}, names or ())
    first, second = (
        Split(images=pixels, labels=classes.labels[split.where]) for pixels, split in zip(images, splits, strict=True)
    )
    known = names if names is not None else classes.names or None
    if fingerprint is None:
        fingerprint = _fingerprint(first, second, known)
    notes = tuple(note for split in splits for note in (*split.notes, *_turned(split)))
    return Dataset(
        name=name,
        train=first,
        test=second,
        class_names=known or _numbers(first, name),
        fingerprint=fingerprint,
        notes=notes,
    )


def name_classes(
    splits: tuple[Arrays, Arrays], names: tuple[str, ...] | None
) -> tuple[tuple[Arrays, Arrays], tuple[str, ...] | None]:
    """Splits whose labels are numbers, and the names of the classes; labels that are names are looked up in them.

    Without names of the classes they are the names that label, in alphabetical order.

    Raises:
        UserError: a label is not among the names of the classes, or one split has names and the other has not.
    """
    texts = [split.labels.dtype.kind in "US" for split in splits]
    if not any(texts):
        return splits, names
    if not all(texts):
        raise UserError(
            f"{splits[texts.index(True)].where}: labels are names, but must be integers as in the other split"
        )
    found = [split.labels.astype(str) for split in splits]
    known = names if names is not None else tuple(sorted({str(one) for labels in found for one in labels.flat}))
    number = {one: i for i, one in enumerate(known)}
    for split, labels in zip(splits, found, strict=True):
        unknown = sorted({str(one) for one in labels.flat} - set(known))
        if unknown:
            raise UserError(f"{split.where}: a label is {unknown[0]!r}, which is none of the class names")
    first, second = (
        split._replace(labels=np.array([number[str(one)] for one in labels.flat], np.int32).reshape(labels.shape))
        for split, labels in zip(splits, found, strict=True)
    )
    return (first, second), known


def _numbers(train: Split, name: str) -> tuple[str, ...]:
    classes = int(train.labels.max(initial=0)) + 1
    if classes > max(1, train.labels.size):
        raise UserError(f"{name}: a label is {classes - 1}, but {train.labels.size} training images are fewer classes")
    return tuple(f"class {i}" for i in range(classes))


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape can only be `[n ch h w]`: 1, 3 or 4 channels before, more than 4 columns behind."""
    return len(shape) == 4 and shape[1] in (1, 3, 4) and shape[2] > 4 and shape[3] > 4


def _turned(split: Arrays) -> tuple[str, ...]:
    shape = split.images.shape
    return (f"{split.where}: images {shape} were read as [n ch h w].",) if channels_first(shape) else ()


def _images(split: Arrays) -> UInt8[np.ndarray, "n h w ch"]:
    images = split.images
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        found = f"{images.dtype} {images.shape}"
        raise UserError(f"{split.where}: images are {found}, but must be uint8 [n h w] or [n h w ch]")
    if channels_first(images.shape):
        return np.ascontiguousarray(np.moveaxis(images, 1, -1))
    return images if images.ndim == 4 else images[..., None]


def _labels(split: Arrays) -> Integer[np.ndarray, "n"]:
    labels, count = split.labels, len(split.images)
    if labels.dtype.kind in "iu" and labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise UserError(f"{split.where}: labels are {labels.dtype} {labels.shape}, but must be integers [{count}]")
    if labels.size and labels.min() < 0:
        raise UserError(f"{split.where}: labels run from {labels.min()}, but must start at 0")
    return labels


def _fingerprint(train: Split, test: Split, names: tuple[str, ...] | None) -> str:
    total = hashlib.sha256(repr(names).encode())
    for array in (train.images, train.labels, test.images, test.labels):
        assert isinstance(array, np.ndarray)
        total.update(f"{array.dtype.str} {array.shape}\0".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


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
        if 0 in split.images.shape[1:] and len(split.labels):
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
                f"(is data.{name}_examples too small?)"
            )
    return dataset


def subset(split: Split, examples: int, name: str) -> Split:
    """The images of `chosen_rows`.

    Raises:
        UserError: there are fewer.
    """
    if examples == 0:
        return split
    rows = chosen_rows(len(split.labels), examples, name)
    return Split(images=split.images[rows], labels=split.labels[rows])


def chosen_rows(count: int, examples: int, name: str) -> Int64[np.ndarray, "n"]:
    """The first `examples` of a fixed permutation of `count` rows, in their old order; 0 keeps all.

    Raises:
        UserError: there are fewer.
    """
    if examples == 0:
        return np.arange(count)
    if examples < 0 or examples > count:
        raise UserError(f"data.{name}_examples is {examples}, but must be from 1 to {count}, or 0 for all")
    return np.sort(np.random.default_rng(0).permutation(count)[:examples])


def channel_counts(images: UInt8[np.ndarray, "n h w ch"]) -> Int64[np.ndarray, "ch 256"]:
    """How often each of the 256 values occurs in each channel."""
    return np.stack([np.bincount(images[..., i].reshape(-1), minlength=256) for i in range(images.shape[-1])])


def channel_statistics(images: UInt8[np.ndarray, "n h w ch"] | Streamed) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[ch]` of each channel in units of the full scale, float32; from exact counts."""
    counts = images.counts if isinstance(images, Streamed) else _counts(images)
    values = (np.arange(256, dtype=np.float32) / 255.0).astype(np.float64)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    variance = (shares * (values[None] - mean[:, None]) ** 2).sum(axis=1)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1e-6).astype(np.float32)


def _counts(images: UInt8[np.ndarray, "n h w ch"]) -> Int64[np.ndarray, "ch 256"]:
    return np.sum([channel_counts(images[i : i + 4096]) for i in range(0, len(images), 4096)], axis=0)
