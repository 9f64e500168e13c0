# SPDX-License-Identifier: Apache-2.0
"""What the data set of a run was when the run began: data.json in its work directory."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ncjax.data.dataset import Dataset, Split
from ncjax.errors import UserError
from ncjax.storage.atomic import write_json
from ncjax.storage.workdir import read_json
from ncjax.typed_json import structure, unstructure

DATA = "data.json"
LISTED = 3  # differences that a message names
DAMAGED = "does not fit; mend it, or move it away: the data that are there then count as those of the run"


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """One split.

    Attributes:
        image: height, width and channels of its images.
        classes: how many of them each class has, by name.
        labels: checksum of the labels in order.
    """

    image: tuple[int, ...]
    classes: Mapping[str, int]
    labels: str


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What tells two data sets apart without their images; `files` is the fingerprint of the data set."""

    train: SplitRecord
    test: SplitRecord
    files: str


def record_of(dataset: Dataset) -> DataRecord:
    """The record of a data set."""

    def of_split(split: Split) -> SplitRecord:
        counts = np.bincount(split.labels, minlength=len(dataset.class_names)).tolist()
        return SplitRecord(
            image=tuple(map(int, split.images.shape[1:])),
            classes=dict(zip(dataset.class_names, counts, strict=True)),
            labels=f"CRC-32 {zlib.crc32(split.labels.tobytes()):08x}",
        )

    return DataRecord(train=of_split(dataset.train), test=of_split(dataset.test), files=dataset.fingerprint)


def keep_record(workdir: Path, dataset: Dataset) -> None:
    """Write data.json where there is none, which is so at the start and in runs of earlier versions; else compare.

    Raises:
        UserError: as `check_record`.
    """
    check_record(workdir, dataset)
    if not (workdir / DATA).exists():
        write_json(workdir / DATA, unstructure(record_of(dataset)))


def check_record(workdir: Path, dataset: Dataset) -> None:
    """Compare a data set with data.json, where there is one.

    Raises:
        UserError: the run began on other data (says what differs), or data.json is damaged.
    """
    path = workdir / DATA
    if not path.exists():
        return
    there, now = structure(DataRecord, read_json(path), f"{path} {DAMAGED}"), record_of(dataset)
    if there != now:
        raise UserError(
            f"{workdir} holds a run on other data ({_differing(there, now)}); put back the data that it began with, or "
            "choose another work directory"
        )


def _differing(there: DataRecord, now: DataRecord) -> str:
    found = []
    for name, old, new in (("training", there.train, now.train), ("test", there.test, now.test)):
        for one in dict.fromkeys((*old.classes, *new.classes)):
            before, after = old.classes.get(one, 0), new.classes.get(one, 0)
            if before != after:
                found.append(f"{name} images of class {one!r}: {before} there, {after} now")
        if old.image != new.image:
            found.append(f"size of {name} images: {old.image} there, {new.image} now")
    if not found:
        return "as many images of each class, but of other names, order or content"
    more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return "; ".join(found[:LISTED]) + more
