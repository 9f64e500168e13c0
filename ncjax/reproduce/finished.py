# SPDX-License-Identifier: Apache-2.0
"""Finished members on disk: small folders that travel between machines, and the results of a setting made of them.

    members/EXPERIMENT/SCALE/SETTING/MEMBER/  member.json  evaluation.json  metrics.jsonl  recovered.npz  features.npz
    results/EXPERIMENT_SETTING_SCALE/         a work directory for `ncjax report`, and for docs/logs

A folder counts when its checksums do, which are written last.
"""

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from ncjax.config import Config, from_dict_of
from ncjax.errors import UserError
from ncjax.reproduce.experiment import Piece, Scale, decisive
from ncjax.results import Clusters, Comparison, Evaluation, Row, join
from ncjax.storage.atomic import write_arrays, write_json, write_text
from ncjax.storage.checksums import CHECKSUMS, damage, write_checksums
from ncjax.storage.metrics import METRICS, Record, join_records, read_records
from ncjax.storage.workdir import RunFile, read_json, write_run_file
from ncjax.typed_json import differences, structure, unstructure

MEMBER, EVALUATION, RECOVERED, FEATURES = "member.json", "evaluation.json", "recovered.npz", "features.npz"
COMPARISON = "comparison.json"
CONTROLS = "controls"  # the folder of rows without a member
UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


class Task(NamedTuple):
    """A piece of an experiment at a scale, in a folder of all experiments."""

    root: Path
    experiment: str
    scale: Scale
    piece: Piece

    @property
    def workdir(self) -> Path:
        """Where its members are trained."""
        return self.root / "work" / self.experiment / self.scale / self.piece.name

    @property
    def members(self) -> Path:
        """Where the finished members of its setting are."""
        return self.root / "members" / self.experiment / self.scale / (self.piece.setting or "all")

    @property
    def results(self) -> Path:
        """The results of its setting."""
        return self.root / "results" / results_name(self.experiment, self.piece.setting, self.scale)


def results_name(experiment: str, setting: str, scale: Scale) -> str:
    """The name of the folder of results of a setting, in docs/logs too."""
    return "_".join(filter(None, (experiment, setting, scale)))


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The content of member.json.

    Attributes:
        member: its name; empty: the controls of a piece.
        piece: that it was trained in.
        members: that the piece has.
        wall_secs: of the whole piece: data, compilation, training, evaluation.
        device: that it was trained on.
        config: of the piece.
    """

    member: str
    piece: str
    members: int
    wall_secs: float
    device: str
    config: Mapping[str, Any]


class Parts(NamedTuple):
    """What is kept of a member; arrays by name, none where there are none."""

    evaluation: Evaluation
    metrics: tuple[Record, ...] = ()
    recovered: Mapping[str, Shaped[np.ndarray, "n"]] = {}
    features: Mapping[str, Shaped[np.ndarray, "..."]] = {}
    comparison: Comparison | None = None


def write_finished(task: Task, finished: Finished, parts: Parts) -> Path:
    """Writes the folder of a member; it counts when this function returns."""
    folder = task.members / folder_name(task.piece, finished.member)
    write_text(folder / EVALUATION, parts.evaluation.to_json())
    if parts.metrics:
        write_text(folder / METRICS, "".join(record.to_json() + "\n" for record in parts.metrics))
    for name, arrays in ((RECOVERED, parts.recovered), (FEATURES, parts.features)):
        if arrays:
            write_arrays(folder / name, arrays)
    if parts.comparison is not None:
        write_json(folder / COMPARISON, unstructure(parts.comparison))
    write_json(folder / MEMBER, unstructure(finished))
    write_checksums(folder)
    return folder


def folder_name(piece: Piece, member: str) -> str:
    """A member's folder, in letters that every file system and transfer takes."""
    return UNSAFE.sub("_", member or f"{CONTROLS}_{piece.name}")


def read_finished(task: Task) -> dict[Path, Finished]:
    """The finished members of the setting of a task, of all its pieces, by their folders.

    Raises:
        UserError: one is damaged, or of another definition of the experiment.
    """
    found = {}
    for path in sorted(task.members.glob(f"*/{CHECKSUMS}")):
        folder = path.parent
        if reason := damage(folder):
            raise UserError(f"{folder} is damaged ({reason}); copy it again, or delete it to train the member again")
        one = structure(Finished, read_json(folder / MEMBER), f"{folder / MEMBER} does not fit")
        _check_definition(task, folder, one)
        found[folder] = one
    return found


def _check_definition(task: Task, folder: Path, one: Finished) -> None:
    remedy = "move it away to train the member again"
    there = from_dict_of(Config, one.config, f"{folder / MEMBER} was written by another version of ncjax; {remedy}")
    for name, before, now in differences(decisive(there), decisive(task.piece.config)):
        raise UserError(
            f"{folder} is of another definition of {task.experiment} ({name}: {before!r} there, {now!r} now); {remedy}"
        )


def is_finished(task: Task, found: Mapping[Path, Finished]) -> bool:
    """Whether all members of a piece are among the finished ones."""
    return len({one.member for one in found.values() if one.member and one.piece == task.piece.name}) >= (
        task.piece.members
    )


def measured_minutes(task: Task, found: Mapping[Path, Finished], device: str) -> float | None:
    """What pieces of the same setting and as many members took on this device, the median; None: there is none."""
    alike = {
        one.piece: one.wall_secs / 60
        for one in found.values()
        if one.device == device and one.members == task.piece.members
    }
    return statistics.median(alike.values()) if alike else None


def members_of(evaluation: Evaluation) -> dict[str, tuple[Row, ...]]:
    """The rows of each member by its name, and under an empty name those of the controls."""
    rows: dict[str, list[Row]] = {}
    for row in evaluation.rows:
        rows.setdefault("" if row.member is None else row.name, []).append(row)
    return {name: tuple(of) for name, of in rows.items()}


def recovered_labels(evaluation: Evaluation, row: Row) -> dict[str, Shaped[np.ndarray, "n"]]:
    """The fine class that k-means gives each example of a row, -1 where it gives none: `VIEW_train` and `VIEW_test`."""
    place = evaluation.rows.index(row)
    return {
        f"{view}_{split}": _smallest(labels[place])
        for view, clusters in evaluation.clusters.items()
        for split, labels in _both(clusters).items()
        if labels is not None
    }


def _both(clusters: Clusters) -> dict[str, Shaped[np.ndarray, "s n"] | None]:
    return {"train": clusters.recovered_train, "test": clusters.recovered_test}


def _smallest(labels: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    return labels.astype(np.int8 if labels.max(initial=0) < 128 else np.int32)


def of_member(records: Sequence[Record], member: str) -> tuple[Record, ...]:
    """The lines of metrics.jsonl with the numbers of one member."""
    return tuple(
        dataclasses.replace(
            record, values={name: {member: of[member]} for name, of in record.values.items() if member in of}
        )
        for record in records
    )


def collect(task: Task) -> Path | None:
    """Writes the results of a setting from its finished members; None: there is none.

    Raises:
        UserError: as `read_finished`.
    """
    found = read_finished(task)
    if not any(one.member for one in found.values()):
        return None
    folders = sorted(found, key=lambda folder: not found[folder].member)  # controls last: the provenance is a member's
    whole = _joined(folders, tuple(found.values()))
    write_text(task.results / "results" / EVALUATION, whole.to_json())
    records = _records(folders, found)
    if records:
        write_text(task.results / METRICS, "".join(record.to_json() + "\n" for record in records))
    for folder in folders:
        if (folder / COMPARISON).is_file():
            write_json(task.results / "results" / COMPARISON, read_json(folder / COMPARISON))
    made = whole.provenance
    write_run_file(
        task.results,
        RunFile(
            config=made.config, command=made.command, versions=made.versions, commit=made.commit, device=made.device
        ),
    )
    return task.results


def _records(folders: Sequence[Path], found: Mapping[Path, Finished]) -> tuple[Record, ...]:
    """The lines of all members; those of a piece were trained at once, pieces one after the other."""
    of_piece: dict[str, list[tuple[Record, ...]]] = {}
    for folder in folders:
        if records := read_records(folder / METRICS):
            of_piece.setdefault(found[folder].piece, []).append(records)
    return join_records([join_records(members, at_once=True) for members in of_piece.values()])


def _joined(folders: Sequence[Path], finished: Sequence[Finished]) -> Evaluation:
    """The rows of members one behind the other, with all commands and devices, and the seconds of each piece."""
    read = [Evaluation.from_json((one / EVALUATION).read_bytes(), str(one / EVALUATION)) for one in folders]
    whole = _with_numbers(join(read))
    secs = {one.piece: one.wall_secs for one in finished}
    made = dataclasses.replace(
        whole.provenance,
        command="; ".join(dict.fromkeys(one.provenance.command for one in read)),
        device="; ".join(dict.fromkeys(one.device for one in finished)),
        wall_secs={name: secs[name] for name in sorted(secs)},
    )
    return dataclasses.replace(whole, provenance=made)


def _with_numbers(whole: Evaluation) -> Evaluation:
    """Rows of members numbered through; controls that several pieces have are there once."""
    names = list(dict.fromkeys(row.name for row in whole.rows if row.member is not None))
    rows: dict[tuple[Any, ...], Row] = {}
    for row in whole.rows:
        member = None if row.member is None else names.index(row.name)
        rows.setdefault(
            (row.name, row.kind, row.epoch, row.layer, row.super_class), dataclasses.replace(row, member=member)
        )
    return dataclasses.replace(whole, rows=tuple(rows.values()))
