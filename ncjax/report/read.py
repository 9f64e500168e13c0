# SPDX-License-Identifier: Apache-2.0
"""Reads the result files of a work directory and checks that they are what the page expects."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncjax.errors import UserError

ROW_NUMBERS = (
    "epoch",
    "member",
    "seed",
    "lr",
    "weight_decay",
    "coarse_train_accuracy",
    "coarse_test_accuracy",
    "probe_train_accuracy",
    "probe_test_accuracy",
    "nc1_coarse_train",
    "nc1_coarse_test",
    "nc1_fine_train",
    "nc1_fine_test",
    "distance_same_class",
    "distance_merged_classes",
    "distance_other_classes",
)


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a work directory holds; `rows`, `run` and `metrics` follow `results/evaluation.json` and `metrics.jsonl`."""

    run: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    metrics: tuple[dict[str, Any], ...]
    comparison: dict[str, Any] | None = None  # results/comparison.json, where there is one


def read_results(workdir: Path) -> Results:
    """Reads `results/evaluation.json`, and `metrics.jsonl` and `config.json` where they exist.

    Args:
        workdir: A work directory after `ncjax evaluate`.

    Returns:
        The checked content; `run["config"]` is that of `evaluation.json`, else that of `config.json`.

    Raises:
        UserError: A file is missing, is not JSON, or a field has another type than the page needs; names the file.
    """
    path = workdir / "results" / "evaluation.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: run `ncjax evaluate {workdir}` first")
    content = _parse(path.read_bytes(), str(path))
    _expect(isinstance(content, dict), path, "expected an object")
    run, rows, notes = content.get("run"), content.get("rows"), content.get("notes") or []
    _expect(isinstance(run, dict), path, '"run" must be an object')
    _expect(isinstance(rows, list) and len(rows) > 0, path, '"rows" must be a list with at least one row')
    _expect(_is_list_of(notes, str), path, '"notes" must be a list of strings')
    for index, row in enumerate(rows):
        _check_row(row, path, f"row {index}")
    if not run.get("config"):
        run = {**run, "config": _read_config(workdir / "config.json")}
    return Results(
        run=run,
        rows=tuple(rows),
        notes=tuple(notes),
        metrics=_read_metrics(workdir / "metrics.jsonl"),
        comparison=_read_comparison(workdir / "results" / "comparison.json"),
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    config = _parse(path.read_bytes(), str(path))
    _expect(isinstance(config, dict), path, "expected an object")
    return config


def _read_comparison(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = _parse(path.read_bytes(), str(path))
    needed = {"speed", "torch_chosen", "time_to_accuracy", "rows", "members", "epochs", "asked_epochs"}
    _expect(isinstance(content, dict) and needed <= set(content), path, f"expected an object with {sorted(needed)}")
    return content


def _read_metrics(path: Path) -> tuple[dict[str, Any], ...]:
    """One record a step, in order of steps; the last one counts where a resumed run wrote a step twice."""
    if not path.is_file():
        return ()
    records: dict[float, dict[str, Any]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        record = _parse(line, f"{path}, line {number}")
        where = f"line {number}: "
        _expect(isinstance(record, dict), path, where + "expected an object")
        _expect(_is_number(record.get("step")), path, where + '"step" must be a number')
        for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            _expect(_is_list_of(record.get(key) or [], int | float | None), path, f"{where}{key} must list numbers")
        records[record["step"]] = record
    return tuple(records[step] for step in sorted(records))


def _check_row(row: Any, path: Path, where: str) -> None:
    _expect(isinstance(row, dict), path, f"{where}: expected an object")
    _expect(isinstance(row.get("kind"), str), path, f'{where}: "kind" must be a string')
    for key in ("name", "label_map"):
        _expect(isinstance(row.get(key), str | None), path, f'{where}: "{key}" must be a string or null')
    for key in ROW_NUMBERS:
        _expect(row.get(key) is None or _is_number(row[key]), path, f'{where}: "{key}" must be a number or null')
    variants = row.get("clp") or {}
    _expect(isinstance(variants, dict), path, f'{where}: "clp" must be an object')
    for variant, scores in variants.items():
        fine = scores is None or (isinstance(scores, dict) and all(v is None or _is_number(v) for v in scores.values()))
        _expect(fine, path, f'{where}: "clp.{variant}" must hold numbers or nulls')
    for key in ("collapse", "collapse_std"):
        _expect(
            _is_table(row.get(key) or {}, 3), path, f'{where}: "{key}" must hold numbers by split, level and measure'
        )
    distances = row.get("class_distances")
    square = _is_list_of(distances or [], list) and all(
        len(line) == len(distances) and _is_list_of(line, int | float | None) for line in distances or []
    )
    _expect(square, path, f'{where}: "class_distances" must be a square list of lists of numbers')


def _is_table(value: Any, depth: int) -> bool:
    """Objects in objects, `depth` deep; at the end a number, null, or a list of them."""
    if depth:
        return isinstance(value, dict) and all(_is_table(item, depth - 1) for item in value.values())
    return value is None or _is_number(value) or _is_list_of(value, int | float | None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of(value: Any, kind: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(item, kind) for item in value)


def _parse(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON ({error}): run the stage that writes this file again") from None


def _expect(condition: bool, path: Path, what: str) -> None:
    if not condition:
        raise UserError(f"{path}: {what}: run the stage that writes this file again")
