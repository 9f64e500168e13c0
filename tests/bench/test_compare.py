# SPDX-License-Identifier: Apache-2.0
"""`ncjax compare`, with eager PyTorch alone, on digits."""

import dataclasses
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from ncjax.bench import compare
from ncjax.bench.interleave import Measured
from ncjax.cli.main import main
from ncjax.config import load_config
from ncjax.data import load_dataset
from ncjax.distributed.environment import environment
from ncjax.features.store import describe_members, write_members
from ncjax.report.comparison import comparison_tables
from ncjax.results import Comparison
from ncjax.storage.atomic import write_json
from ncjax.storage.metrics import read_records
from ncjax.storage.workdir import open_workdir
from ncjax.torch_port.step import TorchOptions
from ncjax.typed_json import structure
from tests.runs import messages

CONFIG = Path(__file__).parents[2] / "configs" / "digits_demo.py"
OPTIONS = ("--labels", "mod:5", "--seeds", "2", "--optim.epochs", "3", "--evaluate.variants", "raw")


def ncjax(*arguments):
    sys.argv = ["ncjax", *map(str, arguments)]
    main()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of three epochs and two seeds."""
    workdir = tmp_path_factory.mktemp("compared") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [])
        patch.setattr(compare, "ROUNDS", 1)
        patch.setattr(compare, "torch_options", lambda config, modes: (TorchOptions(channels_last=True),))
        ncjax("compare", CONFIG, *OPTIONS, "--workdir", workdir, "--budget-minutes", 60)
    return workdir


@pytest.fixture
def result(compared):
    path = compared / "results" / "comparison.json"
    return structure(Comparison, json.loads(path.read_text()), str(path))


@pytest.mark.slow
def test_both_sides_are_measured_and_end_alike(result):
    assert result.epochs == result.asked_epochs == 3
    assert result.torch_chosen == "eager, channels_last"
    for name in ("ncjax", "eager, channels_last"):
        speed = result.speed[name]
        assert len(speed.images_per_sec) == 1
        assert min(speed.images_per_sec) > 0
        assert speed.peak_mib > 1
        assert speed.error == ""
    rows = result.rows
    assert [row.seed for row in rows["ncjax"]] == [row.seed for row in rows["PyTorch"]] == [0, 1]
    for sides in zip(rows["ncjax"], rows["PyTorch"], strict=True):
        accuracies = [row.value("accuracy", level="coarse") for row in sides]
        probes = [row.value("probe") for row in sides]
        assert accuracies[0] > 0.6
        assert abs(accuracies[0] - accuracies[1]) < 0.03
        assert abs(probes[0] - probes[1]) < 0.03
    assert result.provenance.versions["torch"] == version("torch")
    assert result.provenance.command.startswith("ncjax compare ")


@pytest.mark.slow
def test_raw_pixels_are_a_row_of_our_run_alone(compared):
    kinds = {
        side: {row["kind"] for row in json.loads((folder / "results" / "evaluation.json").read_text())["rows"]}
        for side, folder in (("ncjax", compared), ("PyTorch", compared / "torch"))
    }
    assert "raw_pixels" in kinds["ncjax"]
    assert kinds["PyTorch"] == {"trained"}


@pytest.mark.slow
def test_time_to_the_same_accuracy_follows_from_curves_and_speed(compared, result):
    reached = result.time_to_accuracy
    curves = {
        side: [list(one.values["test_accuracy"].values()) for one in read_records(folder / "metrics.jsonl")]
        for side, folder in (("ncjax", compared), ("PyTorch", compared / "torch"))
    }
    for member in range(2):
        target = min(curve[-1][member] for curve in curves.values())
        assert reached.accuracy[member] == pytest.approx(target, abs=1e-6)
        for side, curve in curves.items():
            first = next(epoch for epoch, values in enumerate(curve, start=1) if values[member] >= target)
            assert reached.epochs[side][member] == first
    rate = sorted(result.speed["ncjax"].images_per_sec)[0]
    expected = max(reached.epochs["ncjax"]) * 2 * (1433 // 64) * 64 / rate
    assert reached.secs["ncjax"] == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_report_and_tables_show_both(compared, result, capsys):
    ncjax("report", compared)
    printed = capsys.readouterr().out
    assert "| mod:5 | PyTorch | 2 |" in printed
    assert "| mod:5 | difference, seed by seed | 2 |" in printed
    page = (compared / "report.html").read_text()
    assert "Side by side with PyTorch" in page
    cost, ways, quality = comparison_tables(result, {})
    ours, theirs = (sorted(result.speed[name].images_per_sec)[0] for name in ("ncjax", "eager, channels_last"))
    assert cost.lines[0][-1] == f"{ours / theirs:.2f}"
    assert [line[0] for line in ways.lines] == ["ncjax", "eager, channels_last"]
    assert [line[1] for line in quality.lines] == ["ncjax", "PyTorch", "difference, seed by seed"]


@pytest.mark.slow
def test_the_same_command_again_keeps_what_is_there(compared, capsys):
    kept = [compared / "results" / "speed.json", compared / "metrics.jsonl", compared / "torch" / "metrics.jsonl"]
    before = [path.read_bytes() for path in kept]
    (compared / "results" / "comparison.json").unlink()
    ncjax("compare", CONFIG, *OPTIONS, "--workdir", compared, "--budget-minutes", 60)
    assert [path.read_bytes() for path in kept] == before
    assert (compared / "results" / "comparison.json").exists()


@pytest.mark.slow
def test_another_number_of_epochs_is_refused(compared, capsys):
    with pytest.raises(SystemExit) as stop:
        ncjax("compare", CONFIG, *OPTIONS, "--optim.epochs", 2, "--workdir", compared)
    assert stop.value.code == 2
    assert "holds a comparison of 3 epochs, not 2" in capsys.readouterr().err


def test_members_that_are_added_are_not_compared(tmp_path, capsys):
    config = dataclasses.replace(load_config(CONFIG), seeds=1, labels=("mod:5",))
    open_workdir(tmp_path, config, "", environment())
    write_members(tmp_path, describe_members(config, load_dataset(config.data), from_memory=False))
    with pytest.raises(SystemExit) as stop:
        ncjax("compare", CONFIG, *OPTIONS, "--labels", "mod:5", "--seeds", 3, "--workdir", tmp_path)
    assert stop.value.code == 2
    assert "holds a run of 1 members, but 3 that train at once" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


class Costs(NamedTuple):
    """Seconds of each stage, on a clock that nothing else moves."""

    speed: float
    ours: float
    theirs: float
    evaluation: float


@pytest.fixture
def stages(monkeypatch):
    """`stages(costs)` replaces what a comparison calls by what only costs time; returns what was called."""
    clock, called = [0.0], []

    def use(costs, kill=""):
        def spend(name, secs, result=None):
            called.append(name)
            if name == kill:
                raise KeyboardInterrupt
            clock[0] += secs
            return result

        def interleave(peers, *, rounds, until):
            assert until == pytest.approx(clock[0] + 0.4 * BUDGET)
            return spend("speed", costs.speed, {name: Measured((1000.0,), 1.0, 1, "") for name in peers})

        def train_with_torch(config, workdir, command, options):
            spend("theirs", costs.theirs)
            write_json(workdir / "results" / "training.json", {})

        monkeypatch.setattr(compare, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        monkeypatch.setattr(compare, "interleave", interleave)
        monkeypatch.setattr(compare, "save_batches", lambda *_: None)
        monkeypatch.setattr(compare, "train", lambda config, **_: spend("ours", costs.ours))
        monkeypatch.setattr(compare, "_train_with_torch", train_with_torch)
        monkeypatch.setattr(compare, "apart", lambda function, *arguments: function(*arguments))
        monkeypatch.setattr(compare, "evaluate_run", lambda folder, **_: spend(f"rows {folder.name}", costs.evaluation))
        monkeypatch.setattr(compare, "_last_rows", lambda *_: ())
        monkeypatch.setattr(compare, "_time_to_accuracy", lambda *_: None)
        return called

    return use


BUDGET = 600.0  # seconds
ALL = ["speed", "ours", "theirs", "rows run", "rows torch"]


def run_stages(workdir):
    config = dataclasses.replace(load_config(CONFIG), labels=("mod:5",), seeds=1)
    return compare.compare_with_torch(config, workdir, "ncjax compare ...", budget_minutes=BUDGET / 60)


@pytest.mark.parametrize("speed", [0.0, 30.0, 100.0, 240.0, 400.0, 590.0, 599.0, 600.0, 700.0, 1e6])
def test_epochs_are_what_the_budget_leaves_after_speed_and_for_evaluation(speed, stages, tmp_path):
    """At 1,000 images/s on both sides an epoch of 22 batches of 64 takes 2 * 1.408 s."""
    stages(Costs(speed, 0.0, 0.0, 0.0))
    found = run_stages(tmp_path / "run")
    assert found.epochs == min(40, max(1, math.floor(0.75 * (BUDGET - speed) / 2.816)))


@pytest.mark.parametrize(("costs", "reached", "said"), [
    (Costs(10, 10, 10, 10), ALL, ""),
    (Costs(240, 150, 150, 50), ALL, ""),
    (Costs(240, 150, 150, 70), ALL[:4], "evaluation of the PyTorch run"),
    (Costs(10, 10, 10, 600), ALL[:4], "evaluation of the PyTorch run"),
    (Costs(10, 10, 600, 10), ALL[:4], "evaluation of the PyTorch run"),
    (Costs(10, 600, 10, 10), ["speed", "ours", "rows run"], "training with PyTorch"),
    (Costs(600, 0, 10, 10), ["speed", "ours", "rows run"], "training with PyTorch"),
])  # fmt: skip
def test_no_stage_of_pytorch_begins_when_the_budget_is_over_and_the_same_command_goes_on(
    costs, reached, said, stages, tmp_path
):
    called = stages(costs)
    found = run_stages(tmp_path / "run")
    assert called == reached
    assert [said in line and "the same command again goes on" in line for line in found.left_out] == [True] * bool(said)
    assert written(tmp_path / "run") == found
    called.clear()
    stages(Costs(0, 0, 0, 0))
    again = run_stages(tmp_path / "run")
    assert called == [stage for stage in ALL[1:] if stage != "theirs" or "theirs" not in reached]
    assert set(again.rows) == {"ncjax", "PyTorch"}
    assert again.left_out == ()


@pytest.mark.parametrize("kill", ALL[1:])
def test_a_killed_comparison_keeps_what_it_has(kill, stages, tmp_path):
    called = stages(Costs(10, 10, 10, 10), kill)
    with pytest.raises(KeyboardInterrupt):
        run_stages(tmp_path / "run")
    assert (tmp_path / "run" / "results" / "speed.json").exists()
    if kill != "ours":
        assert set(written(tmp_path / "run").rows) == ({"ncjax"} if kill == "rows torch" else set())
    called.clear()
    stages(Costs(10, 10, 10, 10))
    assert set(run_stages(tmp_path / "run").rows) == {"ncjax", "PyTorch"}
    assert "speed" not in called
    stages(Costs(10, 10, 10, 10), "rows run")
    with pytest.raises(KeyboardInterrupt):
        run_stages(tmp_path / "run")
    assert set(written(tmp_path / "run").rows) == {"ncjax", "PyTorch"}


def written(workdir):
    path = workdir / "results" / "comparison.json"
    return structure(Comparison, json.loads(path.read_text()), str(path))


def test_every_stage_that_computes_has_a_process_of_its_own(stages, tmp_path, monkeypatch):
    """So that PyTorch finds the whole device."""
    called, apart = stages(Costs(10, 10, 10, 10)), []
    monkeypatch.setattr(
        compare, "apart", lambda function, *arguments: apart.append(function.__name__) or function(*arguments)
    )
    run_stages(tmp_path / "run")
    assert called == ALL
    assert apart[1:] == ["_train", "train_with_torch", "_evaluate", "_evaluate"]  # the first makes the batches


def test_the_modes_of_compilation_are_those_that_are_asked_for(stages, tmp_path, monkeypatch):
    stages(Costs(10, 10, 10, 10))
    config = dataclasses.replace(load_config(CONFIG), labels=("mod:5",), seeds=1)
    found = compare.compare_with_torch(
        config, tmp_path / "run", "", budget_minutes=BUDGET / 60, modes=("reduce-overhead",)
    )
    assert list(found.speed) == ["ncjax"] + [
        f"compile reduce-overhead{rest}" for rest in ("", ", channels_last", ", bfloat16", ", channels_last, bfloat16")
    ]
    assert found.torch_options["mode"] == "reduce-overhead"


def test_epochs_are_lowered_to_the_budget():
    config = load_config(CONFIG)
    shorter = compare._shorter(
        dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, epochs=(0, 2, 9))), 2
    )
    assert shorter.optim.epochs == 2
    assert shorter.evaluate.epochs == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget-minutes", 0), "budget-minutes is 0"),
        (("--mesh.data", 2), "mesh.member and mesh.data must be 1"),
        (("--labels", "mod:11"), "mod:11"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as stop:
        ncjax("compare", CONFIG, "--workdir", tmp_path / "new", *arguments)
    assert stop.value.code == 2
    (line,) = messages(capsys.readouterr().err)
    assert message in line
    assert not (tmp_path / "new").exists()
