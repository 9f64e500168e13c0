# SPDX-License-Identifier: Apache-2.0
"""`ncjax compare`, with eager PyTorch alone, on digits."""

import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ncjax.bench import compare
from ncjax.cli.main import main
from ncjax.config import load_config
from ncjax.report.comparison import comparison_tables
from ncjax.results import Comparison
from ncjax.storage.metrics import read_records
from ncjax.torch_port.step import TorchOptions
from ncjax.typed_json import structure

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
        patch.setattr(compare, "torch_options", lambda config: (TorchOptions(channels_last=True),))
        ncjax("compare", CONFIG, *OPTIONS, "--workdir", workdir, "--budget-minutes", 60)
    return workdir


@pytest.fixture
def result(compared):
    path = compared / "results" / "comparison.json"
    return structure(Comparison, json.loads(path.read_text()), str(path))


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


def test_raw_pixels_are_a_row_of_our_run_alone(compared):
    kinds = {
        side: {row["kind"] for row in json.loads((folder / "results" / "evaluation.json").read_text())["rows"]}
        for side, folder in (("ncjax", compared), ("PyTorch", compared / "torch"))
    }
    assert "raw_pixels" in kinds["ncjax"]
    assert kinds["PyTorch"] == {"trained"}


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


def test_the_same_command_again_keeps_what_is_there(compared, capsys):
    kept = [compared / "results" / "speed.json", compared / "metrics.jsonl", compared / "torch" / "metrics.jsonl"]
    before = [path.read_bytes() for path in kept]
    (compared / "results" / "comparison.json").unlink()
    ncjax("compare", CONFIG, *OPTIONS, "--workdir", compared, "--budget-minutes", 60)
    assert [path.read_bytes() for path in kept] == before
    assert (compared / "results" / "comparison.json").exists()


def test_another_number_of_epochs_is_refused(compared, capsys):
    with pytest.raises(SystemExit) as stop:
        ncjax("compare", CONFIG, *OPTIONS, "--optim.epochs", 2, "--workdir", compared)
    assert stop.value.code == 2
    assert "holds a comparison of 3 epochs, not 2" in capsys.readouterr().err


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
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "new").exists()
