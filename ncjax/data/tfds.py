# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Datasets: sets of random access are read without TensorFlow, those in tfrecord files with it, once."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ncjax.config import DataConfig
from ncjax.data.cache import cached, fingerprint, with_options
from ncjax.data.dataset import Dataset, Reader, Split
from ncjax.data.pictures import resize
from ncjax.data.source import Source, source_cache
from ncjax.data.streamed import stream_dataset
from ncjax.errors import UserError, first_line
from ncjax.paths import user_path
from ncjax.storage.atomic import atomic_path

SPLITS = ("train", "test")
FORMAT = "array_record"  # in which sets are prepared
REMOTE = "://"  # in the address of a bucket


def open_tfds(name: str, data_dir: str, cache: Path) -> Any:
    """The builder of a prepared set with the splits `train` and `test` and the features `image` and `label`.

    Args:
        name: of the set.
        data_dir: a folder or an address such as `gs://BUCKET/FOLDER`; empty: that of TFDS.
        cache: folder that what lies at an address is copied into.

    Raises:
        UserError: tensorflow-datasets is not installed, the set is unknown or not prepared, or lacks a split or a
            feature.
    """
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
        if not builder.is_prepared():
            raise FileNotFoundError(f"no prepared set in {os.fspath(builder.data_path)}")
        if REMOTE in data_dir:
            builder = tfds.builder_from_directory(_copied(builder.data_path, cache))
        if has_random_access(builder):
            builder.as_data_source()
    except Exception as error:
        raise UserError(_unreadable(name, data_dir, error)) from error
    info = builder.info
    for split in SPLITS:
        if split not in info.splits:
            raise UserError(f"TFDS set {name!r} has no split {split!r}; its splits are {', '.join(info.splits)}")
    features = dict(info.features)
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"TFDS set {name!r} has no feature 'image' of uint8 pixels; ncjax reads image and label")
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"TFDS set {name!r} has no feature 'label' that is one class; ncjax reads image and label")
    return builder


def prepare_tfds(name: str, data_dir: str = "") -> str:
    """Downloads and prepares a set through TFDS, in files of random access; one that is there stays as it is.

    Args:
        name: of the set, such as `mnist` or `mnist:3.0.1`.
        data_dir: folder that it is put into; empty: that of TFDS.

    Returns:
        The folder of the prepared set.

    Raises:
        UserError: a package is missing, or TFDS cannot prepare the set.
    """
    tfds, options = _import_tfds(), {"data_dir": data_dir or None}
    _import_tensorflow("preparing a TFDS set needs TensorFlow")
    try:
        builder = tfds.builder(name, **options)
        if not builder.is_prepared():
            builder = tfds.builder(name, file_format=FORMAT, **options)
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except Exception as error:  # of the code of the set
        raise UserError(f"TFDS cannot prepare {name!r} ({first_line(error)})") from error
    return os.fspath(builder.data_path)


def prepared_sets() -> tuple[str, ...]:
    """Names and versions of the sets in the default folder of TFDS, such as `mnist/3.0.1`; TFDS is not imported."""
    root = Path(os.environ.get("TFDS_DATA_DIR") or Path("~", "tensorflow_datasets").expanduser())
    found = sorted(path.parent for depth in ("*/*", "*/*/*") for path in root.glob(f"{depth}/dataset_info.json"))
    return tuple(str(path.relative_to(root)) for path in found)


def has_random_access(builder: Any) -> bool:
    """Whether the images of a prepared set can be read one by one, which is so of array_record."""
    file_format = builder.info.file_format
    return file_format in type(file_format).with_random_access()


def _import_tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError("data.source tfds needs tensorflow-datasets: pip install 'ncjax[tfds]'") from error
    return tensorflow_datasets


def _import_tensorflow(why: str) -> None:
    """TensorFlow, which leaves the accelerators to JAX."""
    try:
        import importlib_resources  # noqa: F401  # what TFDS 4.9.10 prepares with, and does not ask for
        import tensorflow
    except ImportError as error:
        raise UserError(f"{why}: pip install 'ncjax[tensorflow]' ({first_line(error)})") from error
    for kind in ("GPU", "TPU"):
        with suppress(RuntimeError, ValueError):  # it has been used before
            tensorflow.config.set_visible_devices([], kind)


def list_tfds(builder: Any) -> tuple[Path, ...]:
    """All files of a prepared set: records and what describes them."""
    return tuple(sorted(file for file in Path(builder.data_path).iterdir() if file.is_file()))


def open_rows(builder: Any, split: str, image_size: int = 0) -> Reader:
    """Reader of a split, in the order of the prepared files; it raises a `UserError` with the file that is damaged."""
    name, source = builder.info.name, builder.as_data_source(split)
    shards = builder.info.splits[split].file_instructions
    ends = np.cumsum([shard.take for shard in shards])

    def read(row: int) -> tuple[UInt8[np.ndarray, "h w ch"], int]:
        try:
            found = source[row]
            return resize(found["image"], image_size), int(found["label"])
        except Exception as error:  # a damaged file can raise anything
            file, reason = shards[int(np.searchsorted(ends, row, side="right"))].filename, first_line(error)
            raise UserError(f"TFDS set {name!r}: {file} cannot be read ({reason}); prepare the set again") from error

    return Reader(name=f"TFDS set {name!r}, split {split}", count=int(ends[-1]), read=read)


def read_tfds(builder: Any, fingerprint: str, image_size: int = 0) -> Dataset:
    """Decode the splits `train` and `test`, in the order of the prepared files.

    Raises:
        UserError: a record file is missing, truncated or corrupt (it is named), images differ in size, or the files
            are such that TensorFlow is needed, and it is not installed.
    """
    train, test = (_split(builder, split, image_size) for split in SPLITS)
    return Dataset(
        name=builder.info.name, train=train, test=test, class_names=tfds_classes(builder), fingerprint=fingerprint
    )


def tfds_classes(builder: Any) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers."""
    return tuple(builder.info.features["label"].names)


def _unreadable(name: str, data_dir: str, error: Exception) -> str:
    if REMOTE in data_dir and isinstance(error, ImportError):
        return f"data.path {data_dir} needs a reader of such addresses: pip install 'ncjax[gcs]' ({first_line(error)})"
    option = f" --data-dir {data_dir}" if data_dir else ""
    where, advice = f" in {data_dir}" if data_dir else "", f"prepare it with: ncjax data fetch tfds:{name}{option}"
    if REMOTE in data_dir:
        advice = "check name and address; a set is prepared in a folder, and then copied to such an address"
    return f"TFDS set {name!r} cannot be read{where} ({first_line(error)}); {advice}"


def _split(builder: Any, split: str, image_size: int) -> Split:
    if has_random_access(builder):
        reader = open_rows(builder, split, image_size)
        rows: Iterator[tuple[np.ndarray, int]] = map(reader.read, range(reader.count))
    else:
        rows = _rows_by_tensorflow(builder, split, image_size)
    images, labels = zip(*rows, strict=True)
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise UserError(
            f"TFDS set {builder.info.name!r}, split {split}: images are {shapes[0]} and {shapes[-1]} (height, width, "
            "channels); make them one size, or set data.image_size"
        )
    return Split(images=np.stack(images), labels=np.array(labels, np.int32))


def _rows_by_tensorflow(builder: Any, split: str, image_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Images and labels in the order of the files, which can only be read from front to back."""
    tfds, where = _import_tfds(), f"TFDS set {builder.info.name!r}"
    _import_tensorflow(f"{where} is in {builder.info.file_format.value} files, which only TensorFlow reads")
    try:
        rows = builder.as_dataset(
            split=split,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            decoders=tfds.decode.PartialDecoding({"image": True, "label": True}),
        )
        for row in tfds.as_numpy(rows):
            yield resize(row["image"], image_size), int(row["label"])
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise anything
        folder = os.fspath(builder.data_path)
        raise UserError(
            f"{where}: split {split} in {folder} cannot be read ({first_line(error)}); prepare the set again"
        ) from error


def _open(config: DataConfig) -> Any:
    if not config.tfds_name:
        raise UserError("data.tfds_name is empty, but data.source tfds needs the name of the set, such as cifar10")
    data_dir = config.path if REMOTE in config.path or not config.path else str(user_path(config.path))
    return open_tfds(config.tfds_name, data_dir, source_cache(config) / "tfds")


def _copied(remote: Any, cache: Path) -> Path:
    """The folder in the cache with the files of a bucket: each is copied once, and again when its size changes."""
    folder = cache / hashlib.sha256(os.fspath(remote).encode()).hexdigest()[:16] / remote.parent.name / remote.name
    for file in remote.iterdir():
        target = folder / file.name
        if not target.exists() or target.stat().st_size != file.stat().length:
            with atomic_path(target) as draft, file.open("rb") as content, draft.open("wb") as copy:
                shutil.copyfileobj(content, copy)
    return folder


def _read(config: DataConfig) -> Dataset:
    builder = _open(config)
    key = with_options(fingerprint(Path(builder.data_path), list_tfds(builder)), config)
    return cached(source_cache(config), key, lambda: read_tfds(builder, key, config.image_size))


def _stream(config: DataConfig) -> Dataset | None:
    builder = _open(config)
    if not has_random_access(builder):
        return None
    readers = {split: open_rows(builder, split, config.image_size) for split in SPLITS}
    root, files = Path(builder.data_path), list_tfds(builder)
    return stream_dataset(config, builder.info.name, tfds_classes(builder), readers, root, files)


TFDS = Source(
    read=_read,
    stream=_stream,
    summary="any set of TensorFlow Datasets with image and label",
    needs="--data.tfds-name NAME, after `ncjax data fetch tfds:NAME`; --data.path is its data_dir, also gs://BUCKET/FOLDER",
)
