# SPDX-License-Identifier: Apache-2.0
"""Reads the result files of a work directory; nothing in it is written, moved or deleted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ncjax.config import EvaluateConfig
from ncjax.errors import UserError
from ncjax.report.comparison import SIDES
from ncjax.results import Comparison, Evaluation
from ncjax.storage.metrics import METRICS, Record, join_records, read_records
from ncjax.storage.workdir import part_folders, read_json, read_run_file
from ncjax.typed_json import structure


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a work directory holds."""

    evaluation: Evaluation  # results/evaluation.json
    config: Mapping[str, object]  # of the evaluation, else of config.json
    metrics: tuple[Record, ...] = ()  # metrics.jsonl, one record a step
    comparison: Comparison | None = None  # results/comparison.json

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
    return Results(
        evaluation=evaluation,
        config=config,
        metrics=_read_metrics(workdir, evaluation),
        comparison=_comparison_of(workdir),
    )


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
