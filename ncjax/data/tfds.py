# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Datasets through their data sources: reading a prepared set needs no TensorFlow."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ncjax.config import DataConfig
from ncjax.data.cache import cached, fingerprint, with_options
from ncjax.data.cuts import Cut, cut_array, evaluation_cut, training_cut
from ncjax.data.dataset import Dataset, Reader, Split
from ncjax.data.source import Source, source_cache
from ncjax.data.streamed import stream_dataset
from ncjax.errors import UserError, first_line
from ncjax.paths import user_path


def open_tfds(name: str, data_dir: str, test_split: str = "test") -> Any:
    """The builder of a prepared set with these splits and the features `image` and `label`.

    Raises:
        UserError: tensorflow-datasets is not installed, the set is unknown or not prepared as array_record, or lacks a
            split or a feature.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError("data.source tfds needs tensorflow-datasets: pip install 'ncjax[tfds]'") from error
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
        if not builder.is_prepared():
            raise FileNotFoundError(f"no prepared set in {builder.data_path}")
        builder.as_data_source()
    except Exception as error:
        raise UserError(_not_prepared(name, data_dir, error)) from error
    info = builder.info
    for split in ("train", test_split):
        if split not in info.splits:
            splits = ", ".join(info.splits)
            raise UserError(f"TFDS set {name!r} has no split {split!r}; its splits are {splits}: set data.test_split")
    features = dict(info.features)
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"TFDS set {name!r} has no feature 'image' of uint8 pixels; ncjax reads image and label")
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"TFDS set {name!r} has no feature 'label' that is one class; ncjax reads image and label")
    return builder


def list_tfds(builder: Any) -> tuple[Path, ...]:
    """All files of a prepared set: records and what describes them."""
    return tuple(sorted(file for file in Path(builder.data_path).iterdir() if file.is_file()))


def open_rows(builder: Any, split: str, config: DataConfig) -> Reader:
    """Reader of a split, in the order of the prepared files; it raises a `UserError` with the file that is damaged."""
    shards = builder.info.splits[split].file_instructions
    ends = np.cumsum([shard.take for shard in shards])
    rows = _Rows(builder.info.name, builder.as_data_source(split), [shard.filename for shard in shards], ends)
    return Reader(
        name=f"TFDS set {rows.name!r}, split {split}",
        count=int(ends[-1]),
        read=partial(_read_row, rows, evaluation_cut(config)),
        crop=partial(_crop, rows, config) if config.crop_scale else None,
    )


class _Rows(NamedTuple):
    """What reads the rows of a split."""

    name: str  # of the set
    source: Any
    files: list[str]
    ends: np.ndarray  # row after the last of each file


def _read_row(rows: _Rows, cut: Cut, row: int) -> tuple[UInt8[np.ndarray, "h w ch"], int]:
    try:
        found = rows.source[row]
        return cut_array(found["image"], cut), int(found["label"])
    except Exception as error:  # a damaged file can raise anything
        file, reason = rows.files[int(np.searchsorted(rows.ends, row, side="right"))], first_line(error)
        raise UserError(f"TFDS set {rows.name!r}: {file} cannot be read ({reason}); prepare the set again") from error


def _crop(rows: _Rows, config: DataConfig, row: int, rng: np.random.Generator) -> UInt8[np.ndarray, "h w ch"]:
    return _read_row(rows, training_cut(config, rng), row)[0]


def read_tfds(builder: Any, fingerprint: str, config: DataConfig) -> Dataset:
    """Decode both splits, in the order of the prepared files.

    Raises:
        UserError: a record file is missing, truncated or corrupt (it is named), or images differ in size.
    """
    train, test = (_split(open_rows(builder, split, config)) for split in ("train", config.test_split))
    return Dataset(
        name=builder.info.name, train=train, test=test, class_names=tfds_classes(builder), fingerprint=fingerprint
    )


def tfds_classes(builder: Any) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers."""
    return tuple(builder.info.features["label"].names)


def _not_prepared(name: str, data_dir: str, error: Exception) -> str:
    folder = f" in {data_dir}" if data_dir else ""
    return (
        f"TFDS set {name!r} cannot be read{folder} ({first_line(error)}); prepare it as array_record in its own "
        "folder, which needs TensorFlow: pip install tensorflow, then "
        f"tfds build {name.split(':')[0]} --file_format=array_record --data_dir=FOLDER, and set data.path to FOLDER"
    )


def _split(reader: Reader) -> Split:
    images, labels = zip(*map(reader.read, range(reader.count)), strict=True)
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise UserError(
            f"{reader.name}: images are {shapes[0]} and {shapes[-1]} (height, width, channels); "
            "make them one size, or set data.image_size"
        )
    return Split(images=np.stack(images), labels=np.array(labels, np.int32))


def _open(config: DataConfig) -> Any:
    if not config.tfds_name:
        raise UserError("data.tfds_name is empty, but data.source tfds needs the name of the set, such as cifar10")
    return open_tfds(config.tfds_name, str(user_path(config.path)) if config.path else "", config.test_split)


def _read(config: DataConfig) -> Dataset:
    builder = _open(config)
    key = with_options(fingerprint(Path(builder.data_path), list_tfds(builder)), config)
    return cached(source_cache(config), key, lambda: read_tfds(builder, key, config))


def _stream(config: DataConfig) -> Dataset:
    builder = _open(config)
    splits = {"train": "train", "test": config.test_split}
    readers = {split: open_rows(builder, name, config) for split, name in splits.items()}
    root, files = Path(builder.data_path), list_tfds(builder)
    return stream_dataset(config, builder.info.name, tfds_classes(builder), readers, root, files)


TFDS = Source(read=_read, stream=_stream)
