# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100 as Krizhevsky distributes them: Python pickles or the binary version, in a folder."""

import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.cache import fingerprint
from ncjax.data.dataset import Dataset, Split
from ncjax.data.source import Source, source_folder
from ncjax.errors import UserError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
PYTHON = {
    "cifar10": (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)),
    "cifar100": (("train",), ("test",)),
}
BINARY = {
    "cifar10": (tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",)),
    "cifar100": (("train.bin",), ("test.bin",)),
}
ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how Python 3 writes bytes for Python 2
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits the names that a pickled NumPy array holds and nothing else, so no code of the file runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a data file has no use for")
        return ADMITTED[module, name]


def list_cifar(root: Path, kind: str) -> tuple[Path, ...]:
    """The files of CIFAR-10 or CIFAR-100 in a folder, or in its one well-known subfolder, training files first.

    Raises:
        UserError: a file is missing.
    """
    subfolders = {
        "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
        "cifar100": ("cifar-100-python", "cifar-100-binary"),
    }
    for folder in (root, *(root / name for name in subfolders[kind])):
        for train, test in (PYTHON[kind], BINARY[kind]):
            files = [folder / name for name in (*train, *test)]
            present = [file for file in files if file.is_file()]
            if len(present) == len(files):
                return tuple(files)
            if present:
                missing = next(file for file in files if not file.is_file())
                raise UserError(f"{missing} is missing, but {present[0].name} is there; unpack the archive again")
    raise UserError(f"no {kind} files in {root}; data.path must be the unpacked folder, such as {subfolders[kind][0]}")


def read_cifar(files: tuple[Path, ...], kind: str, fingerprint: str) -> Dataset:
    """Decode the files that `list_cifar` found; CIFAR-100 by its 100 fine labels.

    Raises:
        UserError: a file is truncated, corrupt, or holds something else; the file is named.
    """
    read = _read_binary if files[0].suffix == ".bin" else _read_pickle
    parts = [read(file, kind) for file in files]
    train, test = parts[:-1], parts[-1]
    classes = 10 if kind == "cifar10" else 100
    for file, part in zip(files, parts, strict=True):
        if part.labels.min(initial=0) < 0 or part.labels.max(initial=0) >= classes:
            raise UserError(f"{file} holds a label outside 0 to {classes - 1}; unpack the archive again")
    joined = Split(images=np.concatenate([p.images for p in train]), labels=np.concatenate([p.labels for p in train]))
    names = CIFAR10_CLASSES if kind == "cifar10" else tuple(f"class {i}" for i in range(100))
    return Dataset(name=kind, train=joined, test=test, class_names=names, fingerprint=fingerprint)


def _read_pickle(file: Path, kind: str) -> Split:
    try:
        content = _ArrayUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        pixels, labels = content[b"data"], content[b"labels" if kind == "cifar10" else b"fine_labels"]
        labels = np.asarray(labels)
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS) or labels.dtype.kind not in "iu":
            raise ValueError(f"data of type {pixels.dtype} and shape {pixels.shape}, {len(labels)} labels")
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{file} is not a {kind} file that can be read ({error}); unpack the archive again") from error
    return _split(pixels, labels)


def _read_binary(file: Path, kind: str) -> Split:
    header = 1 if kind == "cifar10" else 2
    content = np.frombuffer(file.read_bytes(), np.uint8)
    if content.size == 0 or content.size % (header + PIXELS):
        raise UserError(f"{file} is {content.size} bytes, no multiple of {header + PIXELS}; unpack the archive again")
    records = content.reshape(-1, header + PIXELS)
    return _split(records[:, header:], records[:, header - 1])


def _split(pixels: np.ndarray, labels: np.ndarray) -> Split:
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Split(images=images, labels=labels.astype(np.int32))


def _read(kind: str, config: DataConfig) -> Dataset:
    root = source_folder(config)
    files = list_cifar(root, kind)
    return read_cifar(files, kind, fingerprint(root, files))


CIFAR10 = Source(read=partial(_read, "cifar10"))
CIFAR100 = Source(read=partial(_read, "cifar100"))
