# SPDX-License-Identifier: Apache-2.0
"""IDX files, the format of the MNIST family."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.cache import fingerprint, with_options
from ncjax.data.dataset import Arrays, Dataset, join_splits
from ncjax.data.source import Source, source_folder
from ncjax.errors import UserError
from ncjax.storage.bounded import check_inflated, check_memory

FASHION_CLASSES = (  # of 0 to 9; source: README of zalandoresearch/fashion-mnist
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
NAMES = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def list_idx(root: Path) -> tuple[Path, ...]:
    """The four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` of a folder.

    Raises:
        UserError: one is missing.
    """
    files = []
    for name in NAMES:
        stem = f"{name}-idx{3 if name.endswith('images') else 1}-ubyte"
        found = [path for path in (root / stem, root / f"{stem}.gz") if path.is_file()]
        if not found:
            raise UserError(f"{root / stem}[.gz] is missing; an IDX folder holds the four files of the MNIST family")
        files.append(found[0])
    return tuple(files)


def read_idx(
    name: str, files: tuple[Path, ...], fingerprint: str, class_names: tuple[str, ...] | None = None
) -> Dataset:
    """Decode what `list_idx` found.

    Args:
        name: of the data set.
        files: four.
        fingerprint: of the data set.
        class_names: None: classes have numbers.

    Raises:
        UserError: a file is truncated, corrupt or not IDX; the file is named.
    """
    train, test = (
        Arrays(_read_file(images, 3), _read_file(labels, 1), str(images)) for images, labels in (files[:2], files[2:])
    )
    return join_splits(train, test, class_names, name, fingerprint)


def _read_file(file: Path, dimensions: int) -> np.ndarray:
    """The array that the header promises, and no more of the file than that and a byte."""
    packed = file.suffix == ".gz"
    try:
        with gzip.open(file) if packed else file.open("rb") as stream:
            header = stream.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise UserError(f"{file} is no IDX file of {dimensions}-dimensional bytes; fetch it again")
            shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
            promised, stored = math.prod(shape), file.stat().st_size
            if packed:
                check_inflated(promised, stored, str(file))
                check_memory(promised, str(file), "take a smaller set, or an image folder to stream")
            elif promised != stored - len(header):
                raise UserError(f"{file} promises {promised} bytes of data, not {stored - len(header)}; fetch it again")
            content = stream.read(promised + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} is not a file that can be read ({error}); fetch it again") from error
    if len(content) != promised:
        more = "more" if len(content) > promised else str(len(content))
        raise UserError(f"{file} promises {promised} bytes of data and holds {more}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read(config: DataConfig) -> Dataset:
    root = source_folder(config)
    files = list_idx(root)
    return read_idx(root.name, files, with_options(fingerprint(root, files), config))


def _read_fashion(config: DataConfig) -> Dataset:
    root = source_folder(config)
    files = list_idx(root)
    return read_idx("fashion_mnist", files, with_options(fingerprint(root, files), config), FASHION_CLASSES)


IDX = Source(
    read=_read,
    summary="the MNIST family: four IDX files, gzipped or not",
    needs="the folder of the files {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
)
FASHION_MNIST = Source(
    read=_read_fashion,
    summary="Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28, 10 classes",
    needs="nothing after `ncjax data fetch fashion_mnist`; or the folder of its four IDX files",
)
