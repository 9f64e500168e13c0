# SPDX-License-Identifier: Apache-2.0
"""Image folders: `train/<class>/*` and `test/<class>/*`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ncjax.config import DataConfig
from ncjax.data.cache import cached, fingerprint
from ncjax.data.dataset import Dataset, Reader, Split
from ncjax.data.source import Source, source_cache, source_folder
from ncjax.data.streamed import stat_fingerprint, stream_dataset
from ncjax.errors import UserError


def list_folder(root: Path) -> tuple[Path, ...]:
    """All image files of both splits, in the order in which they are read.

    Raises:
        UserError: a split or a class folder is missing, empty, or only in one split.
    """
    classes = {split: _classes(root / split) for split in ("train", "test")}
    for one, other in (("train", "test"), ("test", "train")):
        missing = sorted(set(classes[one]) - set(classes[other]))
        if missing:
            raise UserError(f"class folder {root / other / missing[0]} is missing, but {one} has that class; add it")
    files = []
    for split, names in classes.items():
        for name in names:
            found = sorted(p for p in (root / split / name).iterdir() if p.is_file() and not p.name.startswith("."))
            if not found:
                raise UserError(f"class folder {root / split / name} holds no images")
            files += found
    return tuple(files)


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"folder {folder} is missing; an image folder holds train/<class>/* and test/<class>/*")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise UserError(f"folder {folder} holds no class folders; an image folder holds train/<class>/*")
    return names


def open_folder(files: tuple[Path, ...]) -> dict[str, Reader]:
    """Readers of both splits of what `list_folder` found; they raise what `read_folder` raises."""
    mode, size = _open_mode(files[0])
    numbers = {name: number for number, name in enumerate(folder_classes(files))}

    def reader(split: str) -> Reader:
        own = [file for file in files if file.parent.parent.name == split]

        def read(row: int) -> tuple[UInt8[np.ndarray, "h w ch"], int]:
            return _decode(own[row], mode, size, files[0]), numbers[own[row].parent.name]

        return Reader(name=split, count=len(own), read=read)

    return {split: reader(split) for split in ("train", "test")}


def folder_classes(files: tuple[Path, ...]) -> tuple[str, ...]:
    """The names of the classes, in alphabetical order, which is that of their numbers."""
    return tuple(sorted({file.parent.name for file in files}))


def read_folder(root: Path, files: tuple[Path, ...], fingerprint: str) -> Dataset:
    """Decode the images that `list_folder` found; classes are numbered in alphabetical order.

    Raises:
        UserError: a file is no image, is truncated, or differs in size or colour from the first; the file is named.
    """
    splits = {}
    with ThreadPoolExecutor() as pool:
        for split, reader in open_folder(files).items():
            images, labels = zip(*pool.map(reader.read, range(reader.count)), strict=True)
            splits[split] = Split(images=np.stack(images), labels=np.array(labels, np.int32))
    return Dataset(name=root.name, **splits, class_names=folder_classes(files), fingerprint=fingerprint)


def _open_mode(file: Path) -> tuple[str, tuple[int, int]]:
    from PIL import Image

    try:
        with file.open("rb") as stream, Image.open(stream) as image:
            return "L" if image.mode in ("1", "L", "LA", "I;16") else "RGB", image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file} is not an image that can be read ({error}); remove or replace it") from error


def _decode(file: Path, mode: str, size: tuple[int, int], first: Path) -> UInt8[np.ndarray, "h w ch"]:
    from PIL import Image

    try:
        with file.open("rb") as stream, Image.open(stream) as image:
            found, pixels = image.size, np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file} is not an image that can be read ({error}); remove or replace it") from error
    if found != size:
        raise UserError(
            f"{file} is {found[0]} x {found[1]} pixels, but {first} is {size[0]} x {size[1]}; make all images one size"
        )
    return pixels.reshape(size[1], size[0], -1)


def _read(config: DataConfig) -> Dataset:
    root = source_folder(config)
    files = list_folder(root)
    key = fingerprint(root, files)
    return cached(source_cache(config), key, lambda: read_folder(root, files, key))


def _stream(config: DataConfig) -> Dataset:
    root = source_folder(config)
    files = list_folder(root)
    return stream_dataset(config, root.name, folder_classes(files), open_folder(files), stat_fingerprint(root, files))


IMAGE_FOLDER = Source(read=_read, stream=_stream)
