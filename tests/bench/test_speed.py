# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench`: who is measured beside whom, what is written and printed, bad input. One run is a real one."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ncjax.bench import speed
from ncjax.bench.interleave import Measured
from ncjax.cli.main import main
from tests.runs import messages

CONFIG = Path(__file__).parents[2] / "configs" / "digits_demo.py"
RATES = {
    "ncjax": 900.0,
    "ncjax, 6 at once": 2000.0,
    "ncjax, one after the other": 1000.0,
    "PyTorch eager": 400.0,
    "PyTorch eager, channels_last": 500.0,
    "PyTorch compile": 300.0,
}


def ncjax(*arguments):
    sys.argv = ["ncjax", *map(str, arguments)]
    main()


@pytest.fixture(autouse=True)
def argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])


@pytest.fixture
def asked(monkeypatch):
    """Peers are not started: those of `RATES` give their rates, others fail."""
    asked = {}

    def interleave(peers, *, rounds, until):
        assert until == math.inf
        asked.update(peers=peers, rounds=rounds)
        return {
            name: Measured((RATES[name],) * rounds, 1.0, 2**20, "")
            if name in RATES
            else Measured((), 0.0, 0, "RuntimeError: no compiler")
            for name in peers
        }

    monkeypatch.setattr(speed, "interleave", interleave)
    return asked


@pytest.fixture
def without_torch(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("ncjax.torch_port", "ncjax.bench.torch_training"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)


def test_one_member_beside_every_way_of_running_pytorch(asked, tmp_path, capsys):
    ncjax("bench", "train", CONFIG, "--output", tmp_path / "new" / "train.json", "--data.flip")
    (ours, *theirs) = asked["peers"]
    assert ours == "ncjax"
    assert theirs == [f"PyTorch {way}{last}" for way in ("compile", "eager") for last in (", channels_last", "")]
    (measured,) = asked["peers"]["ncjax"].make_timer.args
    assert (measured.labels, measured.seeds, measured.data.flip) == (("mod:5",), 1, True)
    assert asked["rounds"] == 5
    result = json.loads((tmp_path / "new" / "train.json").read_text())
    (compared,) = result["comparisons"]
    assert compared == {
        "what": "digits_demo: 1 x cnn of width 16, batch 64, float32, augmented",
        "ours": "ncjax",
        "theirs": "PyTorch eager, channels_last",
        "ratio": 1.8,
    }
    assert result["command"].startswith(f"ncjax bench train {CONFIG} --output")
    assert result["config"]["seeds"] == 2
    printed = capsys.readouterr().out
    assert "| PyTorch compile, channels_last | failed: RuntimeError: no compiler | 0 |" in printed
    assert f"result: {tmp_path / 'new' / 'train.json'}" in printed


def test_all_members_at_once_beside_one_after_the_other(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ncjax("bench", "ensemble", CONFIG, "--rounds", 3, "--optim.precision", "bfloat16")
    at_once, alone, *theirs = asked["peers"]
    assert (at_once, alone) == ("ncjax, 6 at once", "ncjax, one after the other")
    assert theirs[-1] == "PyTorch eager, bfloat16"
    (config,) = asked["peers"][at_once].make_timer.args
    assert (len(config.labels), config.seeds) == (3, 2)
    result = json.loads(Path("runs/bench/ensemble_digits_demo.json").read_text())
    assert [row["values"] for row in result["rows"][:2]] == [[2000] * 3, [1000] * 3]
    (compared,) = result["comparisons"]  # every way of running PyTorch has failed
    assert (compared["ours"], compared["theirs"], compared["ratio"]) == (at_once, alone, 2)


def test_modes_of_compilation_and_precision_are_chosen_on_the_command_line(asked, tmp_path):
    options = ("--torch-modes", "eager", "max-autotune", "--optim.precision", "tf32")
    ncjax("bench", "train", CONFIG, "--output", tmp_path / "train.json", *options)
    (_, *theirs) = asked["peers"]
    ways = ("compile max-autotune", "eager")  # the fastest first
    assert theirs == [f"PyTorch {way}{layout}, tf32" for way in ways for layout in (", channels_last", "")]
    (compared,) = json.loads((tmp_path / "train.json").read_text())["comparisons"] or [{"what": "tf32"}]
    assert "tf32" in compared["what"]


def test_gpus_are_measured_in_every_mode(monkeypatch):
    from ncjax.bench import torch_training
    from ncjax.config import load_config

    monkeypatch.setattr(torch_training, "torch_device", lambda: SimpleNamespace(type="cuda"))
    modes = {options.mode for options in torch_training.torch_options(load_config(CONFIG))}
    assert modes == {"eager", "default", "reduce-overhead", "max-autotune"}


@pytest.mark.slow
def test_without_pytorch_ours_alone_is_really_measured(without_torch, tmp_path, capsys):
    options = ("--model.name", "mlp", "--model.width", 8, "--optim.batch", 256, "--data.train-examples", 256)
    ncjax("bench", "train", CONFIG, "--rounds", 2, "--output", tmp_path / "train.json", *options)
    (row,) = json.loads((tmp_path / "train.json").read_text())["rows"]
    assert row["name"] == "ncjax"
    assert row["error"] == ""
    assert len(row["values"]) == 2
    assert 0 < row["min"] <= row["median"] <= row["max"]
    assert row["setup_secs"] > 0
    assert "PyTorch is not measured: this needs PyTorch and safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("speed",),
            "unknown benchmark 'speed'; known: train, ensemble, input, kmeans, probe, evaluate, collapse, theory, "
            "accelerator, startup",
        ),
        (("train",), "ncjax bench train needs a config file"),
        (("train", CONFIG, "--rounds", 0), "rounds is 0, but must be 1 or more"),
        (("startup", "--rounds", -1), "rounds is -1"),
        (("startup", "--round"), "unknown option --round (did you mean --rounds?); see: ncjax bench startup --help"),
        (
            ("train", CONFIG, "--torch-modes", "fast"),
            "--torch-modes is 'fast', but must be one of eager, default",
        ),
        (("train", CONFIG, "--mesh.data", 2), "mesh.member and mesh.data must be 1"),
        (("train", CONFIG, "--data.streamed"), "ncjax bench input measures streaming"),
        (("ensemble", CONFIG, "--labels", "mod:11"), "mod:11"),
        (("ensemble", CONFIG, "--seeds", 0), "seeds is 0"),
        (("train", CONFIG, "--output", "a_file/out.json"), "cannot write a_file/out.json; choose another --output"),
        (("train", CONFIG, "--output", "."), "cannot write .; choose another --output"),
    ],
)
def test_bad_input_is_one_line(arguments, message, asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a_file").touch()
    with pytest.raises(SystemExit) as stop:
        ncjax("bench", *arguments)
    assert stop.value.code == 2
    (line,) = messages(capsys.readouterr().err)
    assert message in line
    assert asked == {}
