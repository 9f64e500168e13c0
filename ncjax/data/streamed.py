# SPDX-License-Identifier: Apache-2.0
"""Data sets larger than memory: every image is scanned once, then images are read when they are used."""

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from ncjax.config import DataConfig
from ncjax.data.cache import cached_arrays, with_options
from ncjax.data.dataset import Dataset, Reader, Split, Streamed, channel_counts, chosen_rows
from ncjax.data.held_out import OF_VALIDATION, hold_out
from ncjax.data.source import source_cache
from ncjax.data.workers import in_order
from ncjax.errors import UserError

BLOCK = 64  # consecutive images that one thread scans


def stream_dataset(
    config: DataConfig,
    name: str,
    classes: tuple[str, ...],
    readers: Mapping[str, Reader],
    root: Path,
    files: tuple[Path, ...],
) -> Dataset:
    """A data set whose images stay in their files.

    Args:
        config: sizes of the subsets, and the cache.
        name: of the data set.
        classes: names of the `f` fine classes.
        readers: of the splits train and test.
        root: of the files.
        files: all of them.

    Raises:
        UserError: as `stream_split`.
    """
    examples = {"train": config.train_examples, "test": config.test_examples}
    rows = {split: chosen_rows(reader.count, examples[split], split) for split, reader in readers.items()}
    cache, key = source_cache(config), with_options(stat_fingerprint(root, files, times=True), config)
    stream = partial(stream_split, cache=cache, key=key, workers=config.workers)
    train = stream(readers["train"], rows["train"])
    if config.validation_fraction:
        held = hold_out(train.labels, config.validation_fraction, classes, OF_VALIDATION)
        train, test = (stream(readers["train"], rows["train"][of]) for of in (~held, held))
    else:
        test = stream(readers["test"], rows["test"])
    lasting = with_options(stat_fingerprint(root, files), config)
    return Dataset(name=name, train=train, test=test, class_names=classes, fingerprint=lasting)


def stream_split(reader: Reader, rows: Int64[np.ndarray, "n"], cache: Path, key: str, *, workers: int = 0) -> Split:
    """A split whose images stay in their files; every image is scanned once, for labels and channel statistics.

    Each process scans its share of the rows and caches what it found; an all-gather joins the shares.

    Args:
        reader: of the split.
        rows: those of the reader's rows that make up the split, in order.
        cache: folder of the cache.
        key: changes when the files do.
        workers: as for `in_order`.

    Raises:
        UserError: an image cannot be read or differs from the first in size (it is named), or the cache cannot be
            written.
    """
    import jax

    part = rows[jax.process_index() :: jax.process_count()]
    name = hashlib.sha256(f"look {key} {reader.name}\0".encode() + part.tobytes()).hexdigest()
    own = cached_arrays(cache, name, ("shape", "labels", "counts"), lambda: _scan(reader, rows[0], part, workers))
    labels, counts = _gather(own["labels"], own["counts"], len(rows))
    height, width, channels = map(int, own["shape"])
    images = Streamed(reader=reader, rows=rows, shape=(len(rows), height, width, channels), counts=counts)
    return Split(images=images, labels=labels)


def _scan(reader: Reader, first: np.int64, rows: Int64[np.ndarray, "part"], workers: int) -> Mapping[str, np.ndarray]:
    """Labels of some rows and how often each value occurs in their images; all are as large as row `first`."""
    shape = reader.read(int(first))[0].shape
    read = partial(_scan_block, reader, int(first), shape, rows)
    blocks = list(in_order(read, range(0, len(rows), BLOCK), 8, workers))
    labels = np.concatenate([np.zeros(0, np.int32), *(labels for labels, _ in blocks)])
    counts = sum((counts for _, counts in blocks), np.zeros((shape[2], 256), np.int64))
    return {"shape": np.array(shape), "labels": labels, "counts": counts}


def _scan_block(
    reader: Reader, first: int, shape: tuple[int, ...], rows: Int64[np.ndarray, "part"], start: int
) -> tuple[Int32[np.ndarray, "_"], Int64[np.ndarray, "ch 256"]]:
    """Labels and counts of `BLOCK` rows."""
    found = [reader.read(int(row)) for row in rows[start : start + BLOCK]]
    for row, (image, _) in zip(rows[start : start + BLOCK], found, strict=True):
        if image.shape != shape:
            raise UserError(
                f"{reader.name}: image {row} is {image.shape}, image {first} is {shape} (height, width, channels); "
                "make them one size, or set data.image_size"
            )
    labels = np.array([label for _, label in found], np.int32)
    return labels, channel_counts(np.stack([image for image, _ in found]))


def _gather(
    labels: Int32[np.ndarray, "part"], counts: Int64[np.ndarray, "ch 256"], total: int
) -> tuple[Int32[np.ndarray, "n"], Int64[np.ndarray, "ch 256"]]:
    """Labels and counts of all processes; JAX has no 64-bit integers unless asked, so counts travel as halves."""
    import jax
    from jax.experimental.multihost_utils import process_allgather

    if jax.process_count() == 1:
        return labels, counts
    longest = -(-total // jax.process_count())
    padded = np.pad(labels, (0, longest - len(labels)))
    all_labels, halves = process_allgather((padded, counts.view(np.int32)))
    return all_labels.T.reshape(-1)[:total], np.ascontiguousarray(halves).view(np.int64).sum(axis=0)


def stat_fingerprint(root: Path, files: tuple[Path, ...], *, times: bool = False) -> str:
    """SHA-256 over the names (from `root`) and sizes of files, and their times where asked for: no file is read.

    Raises:
        UserError: a file is not there.
    """
    total = hashlib.sha256()
    for file in files:
        try:
            found = file.stat()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from error
        told = f"{found.st_size} {found.st_mtime_ns}" if times else f"{found.st_size}"
        total.update(os.fsencode(file.relative_to(root)) + f"\0{told}\0".encode())
    return total.hexdigest()
