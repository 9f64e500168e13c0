# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation in a work directory; views that were evaluated earlier are kept."""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ncjax.errors import UserError
from ncjax.results import Clusters, Evaluation, Measurement, Row
from ncjax.storage.atomic import write_arrays, write_text

PARTS = tuple(field.name for field in dataclasses.fields(Clusters))
WITHOUT_EPOCH = "raw_pixels"  # the file of rows that belong to no epoch


def write_evaluation(workdir: Path, evaluation: Evaluation) -> None:
    """Write results/evaluation.json and results/clusters/EPOCH.npz; what they hold of other views stays.

    A file holds `names [s]`, `layers [s]`, and for each view `VIEW_train [s n]`, `VIEW_test`, `VIEW_super_class`,
    `VIEW_matching` and `VIEW_embedding`, as `ncjax.results.Clusters` has them.
    """
    path = workdir / "results" / "evaluation.json"
    whole = with_earlier_views(evaluation, _earlier(path))
    for epoch in dict.fromkeys(row.epoch for row in evaluation.rows):
        rows = [i for i, row in enumerate(evaluation.rows) if row.epoch == epoch]
        file = workdir / "results" / "clusters" / f"{WITHOUT_EPOCH if epoch is None else epoch}.npz"
        arrays = _arrays(evaluation, rows)
        write_arrays(file, _earlier_arrays(file, arrays) | arrays)
    write_text(path, whole.to_json())


def _earlier(path: Path) -> Evaluation | None:
    try:
        return Evaluation.from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UserError):  # none yet, or of an earlier version
        return None


def with_earlier_views(evaluation: Evaluation, earlier: Evaluation | None) -> Evaluation:
    """An evaluation with what an earlier one of the same networks has of views that it lacks."""
    if earlier is None:
        return evaluation
    known = {_identity(row): row for row in earlier.rows}
    rows = tuple(_with_views(row, known.get(_identity(row)), evaluation) for row in evaluation.rows)
    views = {name: info for name, info in earlier.views.items() if name not in evaluation.views}
    return dataclasses.replace(evaluation, rows=rows, views={**evaluation.views, **views})


def _identity(row: Row) -> tuple[object, ...]:
    return row.name, row.kind, row.epoch, row.layer, row.super_class


def _with_views(row: Row, earlier: Row | None, evaluation: Evaluation) -> Row:
    more: tuple[Measurement, ...] = ()
    if earlier is not None:
        more = tuple(m for m in earlier.measurements if m.view is not None and m.view not in evaluation.views)
    return dataclasses.replace(row, measurements=(*row.measurements, *more))


def _arrays(evaluation: Evaluation, rows: list[int]) -> dict[str, np.ndarray]:
    arrays = {
        "names": np.array([evaluation.rows[i].name for i in rows]),
        "layers": np.array([evaluation.rows[i].layer for i in rows]),
    }
    for view, clusters in evaluation.clusters.items():
        parts = {part: getattr(clusters, part) for part in PARTS}
        arrays |= {f"{view}_{part}": array[rows] for part, array in parts.items() if array is not None}
    return arrays


def _earlier_arrays(file: Path, now: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a file holds, where its rows are the same."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}
    same = all(np.array_equal(arrays.get(name, ()), now[name]) for name in ("names", "layers"))
    return arrays if same else {}


def read_clusters(workdir: Path, epoch: int | None) -> dict[str, Clusters]:
    """The reconstructed labels that results/clusters/EPOCH.npz holds, by view; None: those of raw pixels.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    file = workdir / "results" / "clusters" / f"{WITHOUT_EPOCH if epoch is None else epoch}.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read ({error}); run: ncjax evaluate {workdir}") from error
    views = [name.removesuffix("_matching") for name in arrays if name.endswith("_matching")]
    return {view: Clusters(**{part: arrays.get(f"{view}_{part}") for part in PARTS}) for view in views}  # type: ignore[arg-type]
