# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100 as Krizhevsky distributes them: Python pickles or the binary version, in a folder."""

import io
import pickle
import pickletools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.cache import fingerprint, with_options
from ncjax.data.dataset import Dataset, Split
from ncjax.data.source import Source, source_folder
from ncjax.errors import UserError, first_line
from ncjax.storage.bounded import check_size, read_bounded

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
LARGEST = 2**29  # bytes of a file; the largest one that is distributed has 155 million
PYTHON = {
    "cifar10": (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)),
    "cifar100": (("train",), ("test",)),
}
BINARY = {
    "cifar10": (tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",)),
    "cifar100": (("train.bin",), ("test.bin",)),
}
NAME_FILES = {  # pickle, text, and the fields of the first
    "cifar10": ("batches.meta", ("batches.meta.txt",), ("label_names",)),
    "cifar100": (
        "meta",
        ("fine_label_names.txt", "coarse_label_names.txt"),
        ("fine_label_names", "coarse_label_names"),
    ),
}


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
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


class _Part(NamedTuple):
    """The content of one file."""

    split: Split
    coarse: np.ndarray | None  # label of each image; None: the file holds none


def read_cifar(files: tuple[Path, ...], kind: str, fingerprint: str) -> Dataset:
    """Decode the files that `list_cifar` found; CIFAR-100 by its 100 fine labels.

    Names come from the files that lie beside them: `meta` or `*_label_names.txt`; where there are none, classes have
    numbers. The coarse labels of CIFAR-100 become its super-classes.

    Raises:
        UserError: a file is truncated, corrupt, or holds something else; the file is named.
    """
    read = _read_binary if files[0].suffix == ".bin" else _read_pickle
    parts = [read(file, kind) for file in files]
    train, test = [part.split for part in parts[:-1]], parts[-1].split
    classes = 10 if kind == "cifar10" else 100
    for file, part in zip(files, parts, strict=True):
        labels = part.split.labels
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
            raise UserError(f"{file} holds a label outside 0 to {classes - 1}; unpack the archive again")
    joined = Split(images=np.concatenate([p.images for p in train]), labels=np.concatenate([p.labels for p in train]))
    names, coarse_names = _names(files[0].parent, kind, classes)
    return Dataset(
        name=kind,
        train=joined,
        test=test,
        class_names=names,
        fingerprint=fingerprint,
        super_classes=_super_classes(files, parts, names, coarse_names),
    )


def list_names(folder: Path, kind: str) -> tuple[Path, ...]:
    """The files of a folder that name the classes."""
    pickled, texts, _ = NAME_FILES[kind]
    if (folder / pickled).is_file():
        return (folder / pickled,)
    found = tuple(folder / text for text in texts)
    return found if all(file.is_file() for file in found) else ()


def _names(folder: Path, kind: str, classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the fine and the coarse classes."""
    files, fields = list_names(folder, kind), NAME_FILES[kind][2]
    if not files:
        numbered = tuple(f"class {i}" for i in range(classes))
        return CIFAR10_CLASSES if kind == "cifar10" else numbered, tuple(f"super-class {i:02}" for i in range(20))
    if files[0].suffix == ".txt":
        found = [read_bounded(file, LARGEST).decode("utf-8", "replace").split("\n") for file in files]
    else:
        content = _unpickle(files[0], kind)
        found = [list(content.get(field, ())) for field in fields]
    lists = [tuple(filter(None, map(str.strip, map(_text, names)))) for names in found]
    sizes = (classes, 20)[: len(fields)]
    for names, size in zip(lists, sizes, strict=False):
        if len(names) != size or len(set(names)) != size:
            raise UserError(f"{files[0]} does not name {size} classes, each once; unpack the archive again")
    return lists[0], lists[-1]


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _super_classes(
    files: tuple[Path, ...], parts: Sequence[_Part], names: tuple[str, ...], coarse_names: tuple[str, ...]
) -> tuple[str, ...]:
    """The super-class of each fine class, by the coarse labels; empty: there are none, or not of every class."""
    owner: dict[int, int] = {}
    for file, part in zip(files, parts, strict=True):
        if part.coarse is None:
            return ()
        for fine, coarse in np.unique(np.stack([part.split.labels, part.coarse], 1), axis=0).tolist():
            if not 0 <= coarse < len(coarse_names):
                raise UserError(f"{file} holds a coarse label outside 0 to 19; unpack the archive again")
            if owner.setdefault(fine, coarse) != coarse:
                two = f"{owner[fine]} and {coarse}"
                raise UserError(f"{file}: class {names[fine]!r} has the coarse labels {two}; unpack the archive again")
    return tuple(coarse_names[owner[i]] for i in range(len(names))) if len(owner) == len(names) else ()


def _read_pickle(file: Path, kind: str) -> _Part:
    content = _unpickle(file, kind)
    try:
        pixels, labels = content["data"], np.asarray(content["labels" if kind == "cifar10" else "fine_labels"])
        coarse = np.asarray(content["coarse_labels"]) if "coarse_labels" in content else None
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS) or labels.dtype.kind not in "iu":
            raise ValueError(f"data of type {pixels.dtype} and shape {pixels.shape}, {len(labels)} labels")
        if coarse is not None and (coarse.shape != labels.shape or coarse.dtype.kind not in "iu"):
            raise ValueError(f"{len(coarse)} coarse labels for {len(labels)} images")
    except Exception as error:  # what a pickle holds can raise anything
        raise UserError(_unreadable(file, kind, error)) from error
    return _Part(_split(pixels, labels), coarse)


def _unpickle(file: Path, kind: str) -> Mapping[str, Any]:
    """The dictionary of a pickle, its keys as text, whether Python 2 or 3 wrote it."""
    content = read_bounded(file, LARGEST)
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
                raise pickle.UnpicklingError("it asks for more memory than it has use for")
        found = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        return {_text(key): value for key, value in found.items()}
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(_unreadable(file, kind, error)) from error


def _unreadable(file: Path, kind: str, error: Exception) -> str:
    return f"{file} is not a {kind} file that can be read ({first_line(error)}); unpack the archive again"


def _read_binary(file: Path, kind: str) -> _Part:
    header = 1 if kind == "cifar10" else 2
    content = np.frombuffer(read_bounded(file, LARGEST), np.uint8)
    if content.size == 0 or content.size % (header + PIXELS):
        raise UserError(f"{file} is {content.size} bytes, no multiple of {header + PIXELS}; unpack the archive again")
    records = content.reshape(-1, header + PIXELS)
    return _Part(_split(records[:, header:], records[:, header - 1]), records[:, 0] if header == 2 else None)


def _split(pixels: np.ndarray, labels: np.ndarray) -> Split:
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Split(images=images, labels=labels.astype(np.int32))


def _read(kind: str, config: DataConfig) -> Dataset:
    root = source_folder(config)
    files = list_cifar(root, kind)
    for file in files:
        check_size(file, LARGEST)
    key = fingerprint(root, (*files, *list_names(files[0].parent, kind)))
    return read_cifar(files, kind, with_options(key, config))


CIFAR10 = Source(
    read=partial(_read, "cifar10"),
    summary="CIFAR-10: 50,000 + 10,000 colour images of 32 x 32, 10 classes",
    needs="nothing after `ncjax data fetch cifar10`; or the folder of its files, pickled or binary",
)
CIFAR100 = Source(
    read=partial(_read, "cifar100"),
    summary="CIFAR-100: 50,000 + 10,000 colour images of 32 x 32, 100 classes in 20 super-classes",
    needs="nothing after `ncjax data fetch cifar100`; or the folder of its files, pickled or binary",
)
