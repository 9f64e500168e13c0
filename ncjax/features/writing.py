# SPDX-License-Identifier: Apache-2.0
"""Writes features of a run to `features/EPOCH`, with checksums: each process its own part, a piece at a time."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from ncjax.distributed.processes import is_main_process, lost_peer, on_any_process, on_main_process
from ncjax.errors import UserError
from ncjax.features.feature_set import FEATURES, FeatureSet, Heads
from ncjax.features.pieces import MemberRows, Piece, own_rows
from ncjax.features.store import epoch_folder, identity_of
from ncjax.storage.atomic import remove_folder, replace_folder
from ncjax.storage.checksums import write_checksums
from ncjax.storage.failures import why_not_written
from ncjax.storage.stored_arrays import Place, create_arrays, open_arrays
from ncjax.storage.workdir import CONFIG, feature_draft
from ncjax.training.forward import LOGITS

Small: TypeAlias = Mapping[Place, np.ndarray]  # the same on every process
WRITES = 64  # that are on their way at once


def write_pieces(
    workdir: Path, epoch: int, small: Small, large: Mapping[Place, jax.ShapeDtypeStruct], pieces: Iterable[Piece]
) -> None:
    """Write features/EPOCH, whole or not at all; an older one of that epoch is replaced.

    Args:
        workdir: of the run; this process, or the main process of this run, holds its lock.
        epoch: after which the features are taken.
        small: arrays that every process has, such as labels.
        large: shapes `[s n x]` of what the pieces hold, by `place_of`.
        pieces: of both splits; each process writes what is on its own devices.

    Raises:
        UserError: they cannot be written.
    """

    def write(draft: Path) -> None:
        arrays = open_arrays(draft)
        for piece in pieces:
            _write_rows(arrays, piece.split, own_rows(piece))
        if is_main_process():
            for place, array in small.items():
                arrays[place].write(array).result()

    _write_whole(workdir, epoch, {**_shapes(small), **large}, write)


def save_features(workdir: Path, features: FeatureSet) -> None:
    """`write_pieces` of features that this process has whole.

    Raises:
        UserError: they cannot be written.
    """
    assert features.epoch is not None
    assert features.test is not None
    small: dict[Place, np.ndarray] = {}
    large: dict[Place, Any] = {}
    for name, split in (("train", features.train), ("test", features.test)):
        small |= small_arrays(name, split.labels, split.targets)
        named = {**split.layers} if split.logits is None else {**split.layers, LOGITS: split.logits}
        large |= {place_of(name, tensor): [np.asarray(one[:]) for one in rows] for tensor, rows in named.items()}
    if features.classifier is not None:
        small |= heads_by_place(features.classifier)

    def write(draft: Path) -> None:
        arrays = open_arrays(draft)
        for place, array in (*small.items(), *large.items()):
            arrays[place].write(np.asarray(array)).result()

    _write_whole(workdir, features.epoch, _shapes({**small, **large}), write)


def small_arrays(split: str, labels: np.ndarray, targets: np.ndarray | None) -> dict[Place, np.ndarray]:
    """Labels and targets of a split, by place."""
    known = {"fine": labels, "coarse": targets}
    return {(split, part): np.asarray(array) for part, array in known.items() if array is not None}


def heads_by_place(heads: Heads) -> dict[Place, np.ndarray]:
    """The classifiers of all members."""
    return {("classifier", part): np.asarray(array) for part, array in heads._asdict().items()}


def place_of(split: str, tensor: str) -> Place:
    """Where a tensor is written: what every run has, beside the labels; others below `layers`."""
    return (split, tensor) if tensor in (FEATURES, LOGITS) else (split, "layers", tensor)


def _shapes(arrays: Mapping[Place, Any]) -> dict[Place, jax.ShapeDtypeStruct]:
    found = {place: np.asarray(array) for place, array in arrays.items()}
    return {place: jax.ShapeDtypeStruct(array.shape, array.dtype) for place, array in found.items()}


def _write_rows(arrays: Mapping[Place, Any], split: str, rows: Iterable[MemberRows]) -> None:
    """All but those of members that fill the mesh up; writes that are on their way hold their values in memory."""
    pending: list[Any] = []
    for name, member, first, values in rows:
        array = arrays[place_of(split, name)]
        if member >= array.shape[0]:
            continue
        pending.append(array[member, first : first + len(values)].write(values))
        if len(pending) == WRITES:
            pending.pop(0).result()
    for write in pending:
        write.result()


def _write_whole(
    workdir: Path, epoch: int, shapes: Mapping[Place, jax.ShapeDtypeStruct], write: Callable[[Path], None]
) -> None:
    """A draft takes the place of the folder when all processes have written theirs."""
    folder, draft = epoch_folder(workdir, epoch), feature_draft(workdir, epoch)
    try:
        on_main_process(lambda: _begin(draft, shapes))
        write(draft)
        on_any_process((False,))  # waits for all
        on_main_process(lambda: _end(workdir, epoch, draft, folder))
    except (ValueError, OSError) as error:
        if lost_peer(error):
            raise
        reason = why_not_written(workdir / CONFIG, error)
        raise UserError(f"features cannot be written to {folder} ({reason}); the same command goes on") from error
    finally:
        if is_main_process():
            remove_folder(draft)


def _begin(draft: Path, shapes: Mapping[Place, jax.ShapeDtypeStruct]) -> None:
    remove_folder(draft)
    create_arrays(draft, shapes)


def _end(workdir: Path, epoch: int, draft: Path, folder: Path) -> None:
    write_checksums(draft, identity=identity_of(workdir, epoch))
    replace_folder(draft, folder)
