# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench accelerator`: stages in processes of their own, their limits, and the one result."""

import json
import sys
import time
from types import SimpleNamespace

import pytest

from ncjax.bench import accelerator
from ncjax.bench.accelerator import STAGES, Stage
from ncjax.bench.limited import Answer
from ncjax.bench.result import Pair, bench_result, bench_row, read_result
from ncjax.cli.main import main
from ncjax.errors import UserError


def ncjax(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ncjax", *map(str, arguments)])
    main()


def quick(scope, until):
    rows = [bench_row("ours", "s", (1.0, 2.0, 3.0)), bench_row("theirs", "s", (4.0,))]
    return bench_result("", rows, [Pair("work", "ours", "theirs")], [f"{until - time.monotonic() > 0}"])


def fails(scope, until):
    raise ValueError("no device")


def hangs(scope, until):
    time.sleep(600)


@pytest.fixture
def stages(monkeypatch):
    known = {"first": Stage(quick, 60, "one"), "broken": Stage(fails, 60, "two"), "slow": Stage(hangs, 6, "three")}
    monkeypatch.setattr(accelerator, "STAGES", known)


def test_what_has_ended_counts_and_what_has_not_is_told(stages, tmp_path, monkeypatch, capsys):
    ncjax(monkeypatch, "bench", "accelerator", "--toy", "--output", tmp_path / "out.json")
    result = read_result(tmp_path / "out.json")
    assert [(row.name, row.median, row.min, row.max) for row in result.rows] == [
        ("first: ours", 2.0, 1.0, 3.0),
        ("first: theirs", 4.0, 4.0, 4.0),
    ]
    (line,) = result.comparisons
    assert (line.ours, line.theirs, line.ratio) == ("first: ours", "first: theirs", 0.5)
    assert result.notes == (
        "first: True",
        "broken has no result: ValueError: no device",
        "slow has no result: stopped after 6 s",
    )
    assert result.machine.memory_gib > 0
    assert result.versions["jax"]
    assert "first: ours" in capsys.readouterr().out


def test_limits_are_shares_of_the_time_and_what_it_does_not_reach_is_not_started(monkeypatch):
    started, clock = [], [0.0]

    def run(function, limit, variables):
        started.append(limit)
        clock[0] += limit
        return Answer(quick(None, 0.0), "")

    monkeypatch.setattr(accelerator, "STAGES", {name: Stage(quick, 240, name) for name in ("a", "b", "c")})
    monkeypatch.setattr(accelerator, "run_limited", run)
    monkeypatch.setattr(accelerator, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    result = accelerator.bench_accelerator("", minutes=1.0, toy=True)
    assert started == [30, 30]
    assert result.notes[-1] == "c has no result: no time was left"


def test_without_any_result_it_is_an_error(stages):
    with pytest.raises(UserError, match="nothing was measured: broken: ValueError: no device"):
        accelerator.bench_accelerator("", minutes=8.0, toy=True, stages=["broken"])


def test_unknown_stages_and_no_time_are_refused(monkeypatch, tmp_path, capsys):
    for arguments, message in (
        (("--stages", "kmean"), "unknown stage 'kmean'; known: correctness, train_512"),
        (("--minutes", "0"), "minutes is 0.0, but must be above 0"),
    ):
        with pytest.raises(SystemExit) as stop:
            ncjax(monkeypatch, "bench", "accelerator", *arguments, "--output", tmp_path / "out.json")
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def toy(tmp_path, monkeypatch, stages):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    size = ("--toy", "--minutes", 80)  # for a machine that is busy with others
    ncjax(monkeypatch, "bench", "accelerator", *size, "--stages", *stages, "--output", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert not [note for note in result["notes"] if "no result" in note], result["notes"]
    return result


def test_a_toy_size_runs_here(tmp_path, monkeypatch):
    result = toy(tmp_path, monkeypatch, ["lloyd"])
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["lloyd: ncjax"]["median"] > 0
    assert rows["lloyd: ncjax"]["unit"] == "s"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_of_it_runs_here_in_a_toy_size(tmp_path, monkeypatch):
    result = toy(tmp_path, monkeypatch, list(STAGES))
    assert {row["name"].split(":")[0] for row in result["rows"]} == set(STAGES)
    assert all(row["values"] for row in result["rows"]), result["rows"]
