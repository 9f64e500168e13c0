# SPDX-License-Identifier: Apache-2.0
"""Result files that are missing, damaged or of another version: one line that names the file and the field."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ncjax.errors import UserError
from ncjax.report import run_summary, write_report
from ncjax.report.read import read_results
from tests.report.rows import make_evaluation, make_record, make_row, make_workdir, write_metrics

SOUND = json.loads(make_evaluation([make_row(), make_row("fine", label_map="fine")]).to_json())


def edited(change: Callable[[dict], object]) -> str:
    content = json.loads(json.dumps(SOUND))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing: run `ncjax evaluate"),
        ("", "is not valid JSON"),
        ('{"schema": {', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "run `ncjax evaluate` again"),
        ("3", "run `ncjax evaluate` again"),
        ('{"run": {}, "rows": [{"kind": "trained"}]}', "earlier version of ncjax: run `ncjax evaluate` again"),
        ('{"schema": 99}', "another version of ncjax"),
        (edited(lambda c: c.update(rows=[])), "at least one row"),
        (edited(lambda c: c.pop("rows")), "rows"),
        (edited(lambda c: c.update(notes=[1])), "notes[0]"),
        (edited(lambda c: c["rows"].append(3)), "rows[2]"),
        (edited(lambda c: c["rows"][1].pop("kind")), "rows[1]"),
        (edited(lambda c: c["rows"][0].update(name=3)), "rows[0].name"),
        (edited(lambda c: c["rows"][0].update(epoch="last")), "rows[0].epoch"),
        (edited(lambda c: c["rows"][0]["measurements"][0].update(value="high")), "rows[0].measurements[0].value"),
        (edited(lambda c: c["rows"][0].update(class_distances=[1, 2])), "rows[0].class_distances"),
        (edited(lambda c: c["rows"][0].update(class_distances=[[1.0, 2.0]])), "class_distances of mod:5"),
        (edited(lambda c: c["metrics"]["nc1"].update(scope="everything")), "scope"),
        (edited(lambda c: c.update(views=[])), "views"),
        (edited(lambda c: c["provenance"].update(versions=3)), "provenance.versions"),
        (edited(lambda c: c.update(extra=1)), "extra"),
    ],
)
def test_bad_evaluation_file_is_one_line_that_names_it(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "results" / "evaluation.json"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    for read in (write_report, run_summary):
        with pytest.raises(UserError, match=re.escape(words)) as caught:
            read(tmp_path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metrics.jsonl", '{"step": 1, "tr\n{"step": 2', "line 1"),
        ("metrics.jsonl", "[1]\n{}\n", "line 1"),
        ("metrics.jsonl", '{"epoch": 1}\n{}\n', "line 1"),
        ("metrics.jsonl", '{"step": 1, "epoch": 1, "wall_secs": 1, "train_loss": ["low"]}\n{}\n', "line 1"),
        ("config.json", "{", "is not JSON"),
        ("config.json", "3", "holds no config"),
        ("results/comparison.json", "{", "is not JSON"),
        ("results/comparison.json", "[]", "run `ncjax compare` again"),
        ("results/comparison.json", '{"members": 3}', "run `ncjax compare` again"),
    ],
)
def test_bad_run_files_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    (workdir / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        write_report(workdir)
    assert str(workdir / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_records_are_in_order_of_steps_and_the_last_of_a_step_counts(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    write_metrics(workdir, [make_record(20, 1), make_record(10, 1), make_record(20, 2)])
    found = read_results(workdir)
    assert [(record.step, len(record.values["test_loss"])) for record in found.metrics] == [(10, 1), (20, 2)]
    assert found.comparison is None
