# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Datasets through their data sources: reading a prepared set needs no TensorFlow."""

from typing import Any

import numpy as np

from ncjax.data.dataset import Dataset, Split
from ncjax.errors import UserError


def read_tfds(name: str, data_dir: str) -> Dataset:
    """The splits `train` and `test` of a prepared set with the features `image` (uint8) and `label`.

    Raises:
        UserError: tensorflow-datasets is not installed, the set is unknown or not prepared, or lacks a feature.
    """
    builder = _builder(name, data_dir)
    missing = {"image", "label"} - set(builder.info.features or ())
    if missing:
        raise UserError(f"TFDS set {name} has no feature {missing.pop()!r}; ncjax reads sets of image and label")
    for split in ("train", "test"):
        if split not in builder.info.splits:
            raise UserError(f"TFDS set {name} has no split {split!r}; its splits are {', '.join(builder.info.splits)}")
    try:
        sources = builder.as_data_source()
    except Exception as error:
        raise UserError(_not_prepared(name, data_dir, error)) from error
    train, test = (_split(sources[split]) for split in ("train", "test"))
    info = builder.info
    return Dataset(
        name=info.name,
        train=train,
        test=test,
        class_names=tuple(info.features["label"].names),
        fingerprint=f"{info.full_name}:{info.dataset_size}",
    )


def _builder(name: str, data_dir: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError("data.source tfds needs tensorflow-datasets: pip install 'ncjax[tfds]'") from error
    try:
        return tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    except Exception as error:
        raise UserError(_not_prepared(name, data_dir, error)) from error


def _not_prepared(name: str, data_dir: str, error: Exception) -> str:
    place = f" in {data_dir}" if data_dir else ""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"TFDS set {name!r} cannot be read{place} ({reason}); prepare it once as array_record, which needs TensorFlow: "
        f"pip install tensorflow, then tfds build {name.split(':')[0]} --file_format=array_record"
    )


def _split(source: Any) -> Split:
    rows = [source[i] for i in range(len(source))]
    return Split(
        images=np.stack([np.asarray(row["image"], np.uint8) for row in rows]),
        labels=np.array([row["label"] for row in rows], np.int32),
    )
