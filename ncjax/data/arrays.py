# SPDX-License-Identifier: Apache-2.0
"""Arrays in files: IDX (the MNIST family) and npz."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ncjax.data.dataset import Dataset, Split
from ncjax.errors import UserError

IDX_NAMES = ("train-images", "train-labels", "t10k-images", "t10k-labels")
NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")


def list_idx(root: Path) -> tuple[Path, ...]:
    """The four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` of a folder.

    Raises:
        UserError: one is missing.
    """
    files = []
    for name in IDX_NAMES:
        stem = f"{name}-idx{3 if name.endswith('images') else 1}-ubyte"
        found = [path for path in (root / stem, root / f"{stem}.gz") if path.is_file()]
        if not found:
            raise UserError(f"{root / stem}[.gz] is missing; an IDX folder holds the four files of the MNIST family")
        files.append(found[0])
    return tuple(files)


def read_idx(root: Path, files: tuple[Path, ...], fingerprint: str) -> Dataset:
    """Decode what `list_idx` found.

    Raises:
        UserError: a file is truncated, corrupt or not IDX; the file is named.
    """
    splits = []
    for images, labels in (files[:2], files[2:]):
        splits.append(_split(_read_idx(images, 3), _read_idx(labels, 1), images))
    return _dataset(root.name, splits[0], splits[1], fingerprint)


def _read_idx(file: Path, dimensions: int) -> np.ndarray:
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} is not a gzip file that can be read ({error}); fetch it again") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{file} is no IDX file of {dimensions}-dimensional bytes; fetch it again")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if len(content) != header + math.prod(shape):
        found = len(content) - header
        raise UserError(f"{file} promises {math.prod(shape)} bytes of data and holds {found}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_npz(file: Path, fingerprint: str) -> Dataset:
    """Arrays `x_train [n h w (ch)]` uint8, `y_train [n]` integers, `x_test`, `y_test`, and maybe `class_names [f]`.

    Raises:
        UserError: the file is no npz, an array is missing, or has another type or shape.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            missing = [name for name in NPZ_NAMES if name not in content]
            if missing:
                raise UserError(f"{file} holds no array {missing[0]}; it needs {', '.join(NPZ_NAMES)}")
            arrays = {name: content[name] for name in content.files}
    except UserError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(
            f"{file} is not an npz file that can be read without pickle ({error}); save it again"
        ) from error
    train, test = (_split(arrays[f"x_{name}"], arrays[f"y_{name}"], file) for name in ("train", "test"))
    names = tuple(map(str, np.atleast_1d(arrays["class_names"]))) if "class_names" in arrays else None
    return _dataset(file.stem, train, test, fingerprint, names)


def _split(images: np.ndarray, labels: np.ndarray, file: Path) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(f"{file}: images are {images.dtype} {images.shape}, but must be uint8 [n h w] or [n h w ch]")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(f"{file}: labels are {labels.dtype} {labels.shape}, but must be integers [{len(images)}]")
    if labels.size and not 0 <= labels.min() <= labels.max() < 2**31:
        raise UserError(f"{file}: labels run from {labels.min()} to {labels.max()}, but must be from 0 to 2147483647")
    return Split(images=images if images.ndim == 4 else images[..., None], labels=labels.astype(np.int32))


def _dataset(name: str, train: Split, test: Split, fingerprint: str, names: tuple[str, ...] | None = None) -> Dataset:
    if names is None:
        classes = int(train.labels.max(initial=0)) + 1
        if classes > max(1, train.labels.size):
            raise UserError(
                f"{name}: a label is {classes - 1}, but {train.labels.size} training images are fewer classes"
            )
        names = tuple(f"class {i}" for i in range(classes))
    return Dataset(name=name, train=train, test=test, class_names=names, fingerprint=fingerprint)
