# SPDX-License-Identifier: Apache-2.0
"""Reads the result files of a work directory; nothing in it is written, moved or deleted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ncjax.config import EvaluateConfig
from ncjax.errors import UserError, first_line
from ncjax.examples import Clusters, Examples
from ncjax.report.comparison import SIDES
from ncjax.results import Comparison, Evaluation, Row
from ncjax.storage.metrics import METRICS, Record, join_records, read_records
from ncjax.storage.result_files import cluster_file, examples_file, read_clusters, read_examples
from ncjax.storage.starts import Start, read_starts
from ncjax.storage.workdir import part_folders, read_json, read_run_file
from ncjax.typed_json import structure


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a work directory holds."""

    evaluation: Evaluation  # results/evaluation.json
    config: Mapping[str, object]  # of the evaluation, else of config.json
    metrics: tuple[Record, ...] = ()  # metrics.jsonl, one record a step
    comparison: Comparison | None = None  # results/comparison.json
    workdir: Path | None = None  # None: an evaluation from memory
    examples: Examples | None = None  # results/examples.npz
    starts: tuple[Start, ...] = ()  # starts.jsonl: when training started, and where it went on
    missing: tuple[str, ...] = ()  # files that could not be read, and why

    @property
    def headline(self) -> str:
        """The view that the headline compares: `evaluate.headline`, of earlier configs its default."""
        evaluate = self.config.get("evaluate")
        known = evaluate if isinstance(evaluate, Mapping) else {}
        return str(known.get("headline", EvaluateConfig.headline))


def read_results(workdir: Path) -> Results:
    """Reads `results/evaluation.json`, and what else the page shows where it exists.

    Args:
        workdir: A work directory after `ncjax evaluate`.

    Raises:
        UserError: A file is missing, damaged or of an earlier version of ncjax; names the file and the field.
    """
    path = workdir / "results" / "evaluation.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: run `ncjax evaluate {workdir}` first")
    evaluation = Evaluation.from_json(path.read_bytes(), str(path))
    if not evaluation.rows:
        raise UserError(f"{path}: rows must hold at least one row; run `ncjax evaluate` again")
    config: Mapping[str, object] = evaluation.provenance.config
    if not config and (workdir / "config.json").is_file():
        config = read_run_file(workdir).config
    examples, missing = _examples_of(workdir)
    return Results(
        evaluation=evaluation,
        config=config,
        metrics=_read_metrics(workdir, evaluation),
        comparison=_comparison_of(workdir),
        workdir=workdir,
        examples=examples,
        starts=tuple(start for folder in part_folders(workdir) for start in read_starts(folder)),
        missing=missing,
    )


def results_of(evaluation: Evaluation) -> Results:
    """The same of an evaluation in memory, such as one of features from files; the headline is of its first view.

    Raises:
        UserError: it has no row.
    """
    if not evaluation.rows:
        raise UserError("the evaluation holds no row, so there is nothing to report")
    known, without = EvaluateConfig.headline, "the evaluation holds none; ncjax evaluate FILE --report keeps some"
    headline = known if known in evaluation.views else next(iter(evaluation.views), known)
    return Results(
        evaluation=evaluation,
        config=evaluation.provenance.config or {"evaluate": {"headline": headline}},
        examples=evaluation.examples,
        missing=() if evaluation.examples else (without,),
    )


class RowClusters(NamedTuple):
    """Reconstructed labels of one network in one view, as `ncjax.results.Clusters` has them of several."""

    train: Int[np.ndarray, "n"]
    test: Int[np.ndarray, "m"] | None
    super_class: Int[np.ndarray, "k"]
    matching: Int[np.ndarray, "k"]
    embedding: Float[np.ndarray, "n p"] | None

    def recovered(self, split: str) -> Int[np.ndarray, "_"] | None:
        """The fine class that the cluster of each example stands for; -1 where there is none."""
        clusters = self.train if split == "train" else self.test
        if clusters is None:
            return None
        return np.where(clusters >= 0, self.matching[np.maximum(clusters, 0)], -1)


def clusters_of(results: Results, row: Row) -> dict[str, RowClusters]:
    """The reconstructed labels of a row, by view.

    Raises:
        UserError: they are missing, cannot be read or are of other rows.
    """
    rows = [one for one in results.evaluation.rows if results.workdir is None or one.epoch == row.epoch]
    place = next(number for number, one in enumerate(rows) if one is row)
    if results.workdir is None:
        found, where = dict(results.evaluation.clusters), "the evaluation"
    else:
        found = read_clusters(results.workdir, row.epoch)
        where = str(cluster_file(results.workdir, row.epoch))
    if any(len(part.train) != len(rows) for part in found.values()):
        raise UserError(f"{where} holds clusters of other networks; run ncjax evaluate again")
    return {view: _of_row(part, place) for view, part in found.items() if (part.matching[place] >= 0).any()}


def _of_row(part: Clusters, place: int) -> RowClusters:
    own = part.matching[place] >= 0
    embedding = None if part.embedding is None else part.embedding[place]
    return RowClusters(
        train=part.train[place],
        test=None if part.test is None or (part.test[place] < 0).all() else part.test[place],
        super_class=part.super_class[place][own],
        matching=part.matching[place][own],
        embedding=None if embedding is None or not np.isfinite(embedding).any() else embedding,
    )


def _examples_of(workdir: Path) -> tuple[Examples | None, tuple[str, ...]]:
    """They are there after an evaluation by this version; a page is made without them too."""
    if not examples_file(workdir).is_file():
        reason = "written by ncjax evaluate, which keeps the features; an earlier version did not write it"
        return None, (f"{examples_file(workdir).name} is missing: {reason}",)
    try:
        return read_examples(workdir), ()
    except UserError as error:
        return None, (first_line(error),)


def _comparison_of(workdir: Path) -> Comparison | None:
    path = workdir / "results" / "comparison.json"
    return read_comparison(path, "move it away and run `ncjax compare` again") if path.is_file() else None


def read_comparison(path: Path, remedy: str) -> Comparison:
    """Reads a file that `ncjax compare` wrote.

    Args:
        path: Of comparison.json or speed.json.
        remedy: What to do where the file is not whole.

    Raises:
        UserError: The file is missing or damaged, or its parts do not fit together; names the file and the field.
    """
    where = f"{path} does not fit; {remedy}"
    found: Comparison = structure(Comparison, read_json(path), where)
    reason = next(_misfits(found), "")
    if reason:
        raise UserError(f"{where}: {reason}")
    return found


def _misfits(found: Comparison) -> Iterator[str]:
    """What a comparison lacks that its tables show, field by field."""
    for name in ("members", "images_per_epoch", "epochs"):
        if getattr(found, name) < 1:
            yield f"{name} is {getattr(found, name)}, but must be 1 or more"
    if found.epochs > found.asked_epochs:
        yield f"epochs is {found.epochs}, but must be at most asked_epochs, {found.asked_epochs}"
    for side in (SIDES[0], found.torch_chosen):
        if side not in found.speed:
            yield f"speed holds no {side!r}"
        elif not found.speed[side].images_per_sec:
            yield f"speed.{side}.images_per_sec is empty"
    for name, speed in found.speed.items():
        if any(rate <= 0 for rate in speed.images_per_sec):
            yield f"speed.{name}.images_per_sec must be above 0"
    reached = found.time_to_accuracy
    if reached is not None and not set(SIDES) <= reached.secs.keys() & reached.epochs.keys():
        yield f"time_to_accuracy must have secs and epochs of {' and '.join(SIDES)}"


def _read_metrics(workdir: Path, evaluation: Evaluation) -> tuple[Record, ...]:
    """Returns one record a step, in order of steps, of all members; the last counts where a step was written twice."""
    members = {row.member: row.name for row in evaluation.rows if row.member is not None and row.epoch}
    names = [members[number] for number in sorted(members)]
    parts = []
    for folder in part_folders(workdir):
        records = {record.step: record for record in read_records(folder / METRICS, names)}
        parts.append([records[step] for step in sorted(records)])
    return join_records(parts)
