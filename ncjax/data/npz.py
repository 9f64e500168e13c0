# SPDX-License-Identifier: Apache-2.0
"""Arrays in an npz file."""

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.cache import fingerprint, with_options
from ncjax.data.dataset import Arrays, Dataset, join_splits
from ncjax.data.held_out import held_out_note, hold_out
from ncjax.data.source import Source, source_file
from ncjax.errors import UserError
from ncjax.storage.npy import load_npz

TRAIN, TEST = ("x_train", "y_train"), ("x_test", "y_test")
OPTIONAL = ("class_names", "super_classes")


def read_npz(file: Path, fingerprint: str, test_fraction: float = 0.0) -> Dataset:
    """Arrays `x_train`, `y_train`, `x_test`, `y_test`, and maybe `class_names [f]` and `super_classes [f]`.

    Images are `[n h w]`, `[n h w ch]`, or `[n ch h w]` where that alone can be meant, of whole numbers from 0 to 255
    or fractions from 0 to 1, of one type in both splits; labels are integers or names, `[n]` or `[n 1]`.

    Args:
        file: the npz file.
        fingerprint: of the data set.
        test_fraction: as for `hold_out`, of a file without `x_test`; 0: it has one.

    Raises:
        UserError: the file is no npz, an array is missing, of another type or shape, or larger than the memory.
    """
    arrays = _arrays(file, () if test_fraction else TEST)
    if test_fraction and TEST[0] in arrays:
        raise UserError(f"{file} has a test split, so data.test_fraction must be 0, not {test_fraction}")
    names, supers = (_texts(arrays[name]) if name in arrays else None for name in OPTIONAL)
    train, test = _parts(file, arrays, test_fraction)
    dataset = join_splits(*_bytes(train, test), names, file.stem, fingerprint)
    if supers is not None and len(supers) != len(dataset.class_names):
        raise UserError(f"{file}: super_classes names {len(supers)} for {len(dataset.class_names)} classes; one each")
    return dataclasses.replace(dataset, super_classes=supers or ())


def _parts(file: Path, arrays: dict[str, np.ndarray], fraction: float) -> tuple[Arrays, Arrays]:
    """The splits; with a test fraction that of the training arrays."""
    images, labels = arrays["x_train"], arrays["y_train"]
    if not fraction:
        return Arrays(images, labels, f"{file}, train"), Arrays(arrays["x_test"], arrays["y_test"], f"{file}, test")
    if images.ndim == 0 or labels.reshape(-1).shape != images.shape[:1]:
        raise UserError(f"{file}: x_train is {images.shape}, y_train {labels.shape}; one label an image")
    classes, numbers = np.unique(labels.reshape(-1), return_inverse=True)
    held = hold_out(numbers.reshape(-1), fraction, tuple(map(str, classes)))
    rest = ~held
    train = Arrays(images[rest], labels[rest], f"{file}, train", (held_out_note(held, fraction),))
    return train, Arrays(images[held], labels[held], f"{file}, test")


def _arrays(file: Path, test: tuple[str, ...]) -> dict[str, np.ndarray]:
    def choose(names: Collection[str]) -> Iterable[str]:
        missing = [name for name in (*TRAIN, *test) if name not in names]
        if missing:
            remedy = "; data.test_fraction makes a test split" if missing[0] in TEST else ""
            raise UserError(f"{file} holds no array {missing[0]}; it needs {', '.join((*TRAIN, *TEST))}{remedy}")
        return [name for name in (*TRAIN, *TEST, *OPTIONAL) if name in names]

    return load_npz(file, choose, remedy="make the arrays smaller, or an image folder to stream")


def _texts(array: np.ndarray) -> tuple[str, ...]:
    return tuple(one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in np.atleast_1d(array))


def _bytes(train: Arrays, test: Arrays) -> tuple[Arrays, Arrays]:
    """Both splits as uint8, where their values say how: whole numbers from 0 to 255, or fractions from 0 to 1."""
    kind, other = train.images.dtype, test.images.dtype
    if kind == other == np.uint8 or {kind.kind, other.kind} - set("iuf"):
        return train, test
    where = f"{train.where}: images are {kind} {train.images.shape}"
    if kind != other:
        raise UserError(f"{where}, test images are {other}; save both as one type, best as uint8")
    low = min(split.images.min(initial=0) for split in (train, test))
    high = max(split.images.max(initial=0) for split in (train, test))
    fractions = kind.kind == "f" and 0 <= low <= high <= 1
    if not fractions and not (0 <= low <= high <= 255 and all(_are_whole(split.images) for split in (train, test))):
        raise UserError(f"{where} from {low:g} to {high:g}; save whole numbers from 0 to 255, or fractions from 0 to 1")
    scale = 255 if fractions else 1
    return _scaled(train, scale), _scaled(test, scale)


def _are_whole(images: np.ndarray) -> bool:
    return images.dtype.kind != "f" or bool((images == np.floor(images)).all())


def _scaled(split: Arrays, scale: int) -> Arrays:
    images = split.images if scale == 1 else np.round(split.images * split.images.dtype.type(scale))
    return split._replace(images=images.astype(np.uint8))


def _read(config: DataConfig) -> Dataset:
    file = source_file(config)
    return read_npz(file, with_options(fingerprint(file.parent, [file]), config), config.test_fraction)


NPZ = Source(
    read=_read,
    splits=True,
    summary="arrays of your own in one npz file",
    needs="the npz file with x_train, y_train, x_test, y_test",
)
