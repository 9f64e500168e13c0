# SPDX-License-Identifier: Apache-2.0
"""The tables of a comparison with PyTorch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ncjax.report import run_summary, write_report
from ncjax.report.comparison import comparison_tables
from ncjax.results import Comparison, Speed, TimeToAccuracy
from ncjax.typed_json import structure, unstructure
from tests.report.rows import VIEWS, changed, clp, make_row, make_workdir

OURS = Speed(images_per_sec=(900.0, 1000.0, 1200.0), setup_secs=4.0, peak_mib=100.0)
THEIRS = Speed(images_per_sec=(500.0,), setup_secs=2.0, peak_mib=0.0)
FAILED = Speed(images_per_sec=(), setup_secs=0.0, peak_mib=0.0, error="out of memory")
COMPARISON = Comparison(
    members=2,
    images_per_epoch=1000,
    asked_epochs=30,
    epochs=20,
    budget_minutes=1.0,
    torch_options={"compile": False},
    torch_chosen="eager",
    speed={"ncjax": OURS, "eager": THEIRS, "compile": FAILED},
    time_to_accuracy=TimeToAccuracy(
        accuracy=(0.9, 0.9), epochs={"ncjax": (3, 4), "PyTorch": (4, 4)}, secs={"ncjax": 10.0, "PyTorch": 40.0}
    ),
    rows={
        "ncjax": (make_row(seed=0, accuracy=0.8), make_row(seed=1, accuracy=0.9)),
        "PyTorch": (make_row(seed=1, accuracy=0.6), make_row(seed=0, accuracy=0.7)),
    },
)


def test_cost_ways_and_quality_stand_side_by_side() -> None:
    cost, ways, quality = comparison_tables(COMPARISON, VIEWS)
    assert cost.title == "Cost of 2 members, 20 of 30 epochs"
    assert cost.lines[0] == ("images/s, median (min to max)", "1,000 (900 to 1,200)", "500 (500 to 500)", "2.00")
    assert cost.lines[1][1:] == ("10", "40", "0.25")
    assert cost.lines[2][1:] == ("100", "0", "–")  # no ratio to nothing
    assert cost.lines[3][1:] == ("4", "2", "2.00")
    assert ways.lines[1:] == (("eager", "500 (500 to 500)", "2.0"), ("compile", "out of memory", "–"))
    assert quality.head[:6] == ("trained on", "", "seeds", "coarse test", "true-label probe", "CLP: raw features")
    assert [line[:3] for line in quality.lines] == [
        ("mod:5", "ncjax", "2"),
        ("mod:5", "PyTorch", "2"),
        ("mod:5", "difference, seed by seed", "2"),
    ]


def test_differences_are_those_of_the_same_seed() -> None:
    *_, quality = comparison_tables(COMPARISON, {})
    column = quality.head.index("CLP: raw")
    assert [line[column] for line in quality.lines] == ["85.0 ± 7.1", "65.0 ± 7.1", "20.0 ± 14.1"]


def test_a_seed_without_a_number_on_one_side_is_no_difference() -> None:
    first, second = COMPARISON.rows["ncjax"]
    rows = {**COMPARISON.rows, "ncjax": (first, changed(second, {clp(): None}))}
    *_, quality = comparison_tables(replace(COMPARISON, rows=rows), VIEWS)
    assert quality.lines[2][quality.head.index("CLP: raw features")] == "10.0"


def test_speed_alone_is_shown_before_the_networks_are_trained() -> None:
    cost, ways = comparison_tables(replace(COMPARISON, time_to_accuracy=None, rows={}), VIEWS)
    assert [line[0].split(" ")[0] for line in cost.lines] == ["images/s,", "peak", "secs"]
    assert len(ways.lines) == 3


def test_comparison_is_read_from_the_work_directory(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, COMPARISON.rows["ncjax"])
    assert "PyTorch" not in run_summary(workdir)
    content = unstructure(COMPARISON)
    assert structure(Comparison, json.loads(json.dumps(content)), "here") == COMPARISON
    (workdir / "results" / "comparison.json").write_text(json.dumps(content))
    summary = run_summary(workdir)
    assert "Cost of 2 members, 20 of 30 epochs:\n\n|  | ncjax | PyTorch (eager) | ncjax / PyTorch |" in summary
    assert "| mod:5 | difference, seed by seed | 2 |" in summary
    assert "Side by side with PyTorch" in write_report(workdir).read_text()


@pytest.mark.parametrize("missing", ["speed", "torch_chosen", "members", "epochs", "asked_epochs"])
def test_what_a_comparison_needs_is_named(missing: str) -> None:
    content = {name: value for name, value in unstructure(COMPARISON).items() if name != missing}
    with pytest.raises(ValueError, match=missing):
        structure(Comparison, content, "here")
