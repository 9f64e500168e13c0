# SPDX-License-Identifier: Apache-2.0
"""The tables of a comparison with PyTorch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ncjax.report import run_summary, write_report
from ncjax.report.comparison import comparison_tables
from ncjax.report.number_formats import percent
from ncjax.results import Comparison, Speed, TimeToAccuracy
from ncjax.typed_json import structure, unstructure
from tests.report.rows import VIEWS, changed, clp, make_row, make_workdir, undrawn

__all__ = ["undrawn"]

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


@pytest.mark.parametrize(("ours", "theirs"), [
    ((0, 1, 2), (0, 2)), ((0, 2), (0, 1, 2)), ((2, 1, 0), (0, 1, 2)), ((0,), (1,)), ((0, 1), (1,)), ((5, 3), (3, 4)),
    ((0, 1, 2, 3), (3,)), ((1,), (1,)), ((0, 1, 2, 3), (3, 2, 1, 0)), ((7, 8, 9), (9, 10, 7)),
])  # fmt: skip
def test_differences_pair_equal_seeds_where_some_are_missing(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    """A seed s has the accuracy s^2 % with ncjax and s % with PyTorch."""
    rows = {
        "ncjax": tuple(make_row(seed=seed, accuracy=seed**2 / 100) for seed in ours),
        "PyTorch": tuple(make_row(seed=seed, accuracy=seed / 100) for seed in theirs),
    }
    *_, quality = comparison_tables(replace(COMPARISON, rows=rows), VIEWS)
    both = [seed for seed in ours if seed in theirs]
    line, column = quality.lines[2], quality.head.index("CLP: raw features")
    assert line[2] == str(len(both))
    assert line[column] == percent([(seed**2 - seed) / 100 for seed in both])


@pytest.mark.parametrize("side", ["ncjax", "PyTorch"])
def test_settings_are_paired_by_what_they_are(side: str) -> None:
    """A label map that one side lacks is a line of the other, and shifts nothing."""
    rows = {name: (make_row(label_map="mod:2", accuracy=0.5),) for name in ("ncjax", "PyTorch")}
    rows[side] = (make_row(label_map="mod:5", accuracy=0.9), *rows[side])
    *_, quality = comparison_tables(replace(COMPARISON, rows=rows), VIEWS)
    column = quality.head.index("CLP: raw features")
    lines = [(line[0].split("/")[0], line[1], line[column]) for line in quality.lines]
    assert ("mod:2", "difference, seed by seed", "0.0") in lines
    assert ("mod:5", side, "90.0") in lines
    assert len(lines) == 4


def test_one_side_is_shown_before_the_other_is_there() -> None:
    rows = {"ncjax": COMPARISON.rows["ncjax"]}
    *_, quality = comparison_tables(replace(COMPARISON, rows=rows), VIEWS)
    assert [line[1] for line in quality.lines] == ["ncjax"]


@pytest.mark.parametrize(("values", "noisy"), [
    ((100.0, 100.0), False), ((100.0, 149.0), False), ((100.0, 150.0), False), ((100.0, 151.0), True),
    ((151.0, 120.0, 100.0), True), ((100.0,), False), ((1.0, 1000.0), True), ((3.0, 2.0), False), ((3.1, 2.0), True),
    ((0.0, 1.0), True),
])  # fmt: skip
def test_a_spread_above_one_and_a_half_is_marked_as_noise(values: tuple[float, ...], noisy: bool) -> None:
    speed = {"ncjax": replace(OURS, images_per_sec=values), "eager": THEIRS}
    cost, ways = comparison_tables(replace(COMPARISON, speed=speed, rows={}), VIEWS)
    assert (", noise)" in cost.lines[0][1], ", noise)" in ways.lines[0][1]) == (noisy, noisy)
    assert "noise" not in cost.lines[0][2]


def test_speed_alone_is_shown_before_the_networks_are_trained() -> None:
    cost, ways = comparison_tables(replace(COMPARISON, time_to_accuracy=None, rows={}), VIEWS)
    assert [line[0].split(" ")[0] for line in cost.lines] == ["images/s,", "peak", "secs"]
    assert len(ways.lines) == 3


@pytest.mark.usefixtures("undrawn")
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
