# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation in a work directory; views that were evaluated earlier are kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Shaped

from ncjax.errors import UserError
from ncjax.results import Evaluation, Measurement, Row
from ncjax.storage.atomic import set_aside, write_arrays, write_text
from ncjax.storage.npy import load_npz
from ncjax.storage.result_files import (
    PARTS,
    ROW_ARRAYS,
    arrays_of,
    cluster_file,
    examples_file,
    read_clusters,
)
from ncjax.storage.workdir import results_locked

__all__ = ["cluster_file", "read_clusters", "with_earlier", "write_evaluation"]
T = TypeVar("T")
Identity = tuple[str, str, int | None, str, tuple[int, ...]]  # of a row: name, kind, epoch, layer, super-classes
ByRow = dict[Identity, np.ndarray]


def write_evaluation(workdir: Path, evaluation: Evaluation) -> None:
    """Write results/evaluation.json and results/clusters/EPOCH.npz; what they hold of other views and controls stays.

    results/examples.npz is written anew, as `ncjax.storage.result_files.arrays_of` has it.

    Another evaluation that is writing is waited for.

    An evaluation.json that cannot be read is renamed to evaluation.unreadable.json.

    A file holds, of the rows `s` of an epoch, `names [s]`, `layers [s]` and `super_classes [s f]`, and for each view
    `VIEW_train [s n]`, `VIEW_test`, `VIEW_super_class`, `VIEW_matching` and `VIEW_embedding`, as
    `ncjax.results.Clusters` has them.
    """
    with results_locked(workdir):
        _write(workdir, evaluation)


def _write(workdir: Path, evaluation: Evaluation) -> None:
    path = workdir / "results" / "evaluation.json"
    earlier = _earlier(path)
    whole = with_earlier(evaluation, earlier)
    for epoch in dict.fromkeys(row.epoch for row in evaluation.rows):
        file = cluster_file(workdir, epoch)
        rows = [row for row in whole.rows if row.epoch == epoch]
        arrays = {
            "names": np.array([row.name for row in rows]),
            "layers": np.array([row.layer for row in rows]),
            "super_classes": np.array([row.super_class for row in rows], np.int32),
        }
        clusters = _clusters_before(file, earlier, evaluation, epoch)
        for name, of_rows in _clusters_now(evaluation, epoch).items():
            clusters[name] = clusters.get(name, {}) | of_rows
        arrays |= {name: _stacked(of_rows, rows) for name, of_rows in clusters.items() if of_rows}
        write_arrays(file, arrays)
    if evaluation.examples is not None:
        write_arrays(examples_file(workdir), arrays_of(evaluation.examples))
    write_text(path, whole.to_json())


def _earlier(path: Path) -> Evaluation | None:
    try:
        return Evaluation.from_json(path.read_bytes(), str(path))
    except (OSError, UserError):  # none yet, edited, or of another version
        set_aside(path)
        return None


def with_earlier(evaluation: Evaluation, earlier: Evaluation | None) -> Evaluation:
    """An evaluation with what an earlier one of the same run has besides: other views, and controls left out now."""
    if earlier is None:
        return evaluation
    known = {_identity(row): row for row in earlier.rows}
    rows = [_with_views(row, known.get(_identity(row)), evaluation) for row in evaluation.rows]
    measured = {_what(row) for row in rows}
    numbers = {row.name: row.member for row in evaluation.rows if row.member is not None}  # the run may have grown
    rows += [_numbered(row, numbers) for row in earlier.rows if _what(row) not in measured]
    return dataclasses.replace(
        evaluation,
        rows=tuple(rows),
        metrics={**evaluation.metrics, **_others(earlier.metrics, evaluation.metrics)},
        views={**evaluation.views, **_others(earlier.views, evaluation.views)},
    )


def add_views(evaluation: Evaluation, more: Evaluation, order: Sequence[str]) -> Evaluation:
    """An evaluation with what another one, of the same networks, has of other views; views in an order of names."""
    known = {_identity(row): row for row in more.rows}

    def added(row: Row) -> Row:
        other = known[_identity(row)]
        left_out = (*row.left_out, *(line for line in other.left_out if line not in row.left_out))
        return dataclasses.replace(_with_views(row, other, evaluation), left_out=left_out)

    views, clusters = {**evaluation.views, **more.views}, {**evaluation.clusters, **more.clusters}
    return dataclasses.replace(
        evaluation,
        rows=tuple(map(added, evaluation.rows)),
        views={view: views[view] for view in order},
        clusters={view: clusters[view] for view in order if view in clusters},
    )


def _numbered(row: Row, numbers: Mapping[str, int]) -> Row:
    return row if row.member is None else dataclasses.replace(row, member=numbers.get(row.name, row.member))


def _others(earlier: Mapping[str, T], now: Mapping[str, T]) -> dict[str, T]:
    return {name: info for name, info in earlier.items() if name not in now}


def _identity(row: Row) -> Identity:
    return row.name, row.kind, row.epoch, row.layer, row.super_class


def _what(row: Row) -> tuple[object, ...]:
    """What is measured again as a whole: networks or controls of a kind, at an epoch, under a label map."""
    return row.kind, row.epoch, row.super_class


def _with_views(row: Row, earlier: Row | None, evaluation: Evaluation) -> Row:
    more: tuple[Measurement, ...] = ()
    if earlier is not None:
        more = tuple(m for m in earlier.measurements if m.view is not None and m.view not in evaluation.views)
    return dataclasses.replace(row, measurements=(*row.measurements, *more))


def _clusters_now(evaluation: Evaluation, epoch: int | None) -> dict[str, ByRow]:
    """What the rows of an epoch have, by the names of the file."""
    return {
        f"{view}_{part}": {_identity(row): array[i] for i, row in enumerate(evaluation.rows) if row.epoch == epoch}
        for view, clusters in evaluation.clusters.items()
        for part in PARTS
        if (array := getattr(clusters, part)) is not None
    }


def _clusters_before(
    file: Path, earlier: Evaluation | None, evaluation: Evaluation, epoch: int | None
) -> dict[str, ByRow]:
    """What a file holds of the rows of an earlier evaluation, but for the views that its rows have anew."""
    rows = [_identity(row) for row in earlier.rows if row.epoch == epoch] if earlier else []
    try:
        arrays = load_npz(file)
    except UserError:
        return {}
    if len(arrays.get("names", ())) != len(rows):
        return {}
    now = {_identity(row) for row in evaluation.rows}
    anew = tuple(f"{view}_" for view in evaluation.views)
    return {
        name: {row: array[i] for i, row in enumerate(rows) if row not in now or not name.startswith(anew)}
        for name, array in arrays.items()
        if name not in ROW_ARRAYS
    }


def _stacked(of_rows: ByRow, rows: Sequence[Row]) -> Shaped[np.ndarray, "s ..."]:
    """One line a row; -1 or NaN where it has nothing."""
    known = list(of_rows.values())
    shape = np.max([array.shape for array in known], axis=0)
    fill = np.nan if known[0].dtype.kind == "f" else -1
    whole = np.full((len(rows), *shape), fill, known[0].dtype)
    for line, row in zip(whole, rows, strict=True):
        array = of_rows.get(_identity(row))
        if array is not None:
            line[: len(array)] = array
    return whole
