# SPDX-License-Identifier: Apache-2.0
"""Reads the result files of a work directory; nothing in it is written, moved or deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ncjax.config import EvaluateConfig
from ncjax.errors import UserError
from ncjax.results import Comparison, Evaluation
from ncjax.storage.metrics import Record, read_records
from ncjax.storage.workdir import read_json, read_run_file
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
        metrics=_read_metrics(workdir / "metrics.jsonl", evaluation),
        comparison=_read_comparison(workdir / "results" / "comparison.json"),
    )


def _read_comparison(path: Path) -> Comparison | None:
    if not path.is_file():
        return None
    return structure(Comparison, read_json(path), f"{path} does not fit; run `ncjax compare` again")


def _read_metrics(path: Path, evaluation: Evaluation) -> tuple[Record, ...]:
    """Returns one record a step, in order of steps; the last one counts where a resumed run wrote a step twice."""
    members = {row.member: row.name for row in evaluation.rows if row.member is not None and row.epoch}
    names = [members[number] for number in sorted(members)]
    records = {record.step: record for record in read_records(path, names)}
    return tuple(records[step] for step in sorted(records))
