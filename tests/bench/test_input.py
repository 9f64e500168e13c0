# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench input`: who is measured beside whom, and that the input is really measured."""

import json
import sys
from pathlib import Path

import pytest

from ncjax.bench import input as bench_input
from ncjax.bench.interleave import Measured
from ncjax.cli.main import main
from ncjax.config import load_config

CONFIG = Path(__file__).parents[2] / "configs" / "digits_demo.py"
RATES = {bench_input.INPUT: 5000.0, bench_input.STEP: 500.0, bench_input.WHOLE: 490.0}


@pytest.fixture(autouse=True)
def argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])


@pytest.fixture
def asked(monkeypatch):
    asked = {}

    def interleave(peers, *, rounds):
        asked.update(peers=peers, rounds=rounds)
        return {name: Measured((RATES[name],) * rounds, 1.0, 2**20, "") for name in peers}

    monkeypatch.setattr(bench_input, "interleave", interleave)
    return asked


def test_input_stands_beside_the_step_on_resident_images(asked, tmp_path):
    sys.argv = ["ncjax", "bench", "input", str(CONFIG), "--rounds", "3", "--output", str(tmp_path / "input.json")]
    main()
    streamed = {name: peer.make_timer.args[0].data.streamed for name, peer in asked["peers"].items()}
    assert streamed == {bench_input.INPUT: True, bench_input.STEP: False, bench_input.WHOLE: True}
    assert asked["rounds"] == 3
    result = json.loads((tmp_path / "input.json").read_text())
    assert [(c["ours"], c["theirs"], c["ratio"]) for c in result["comparisons"]] == [
        (bench_input.INPUT, bench_input.STEP, 10.0),
        (bench_input.WHOLE, bench_input.STEP, 0.98),
    ]
    assert result["comparisons"][0]["what"] == "digits_demo: 6 x cnn of width 16, batch 64, float32"


@pytest.mark.parametrize("way", ["input_timer", pytest.param("streamed_timer", marks=pytest.mark.slow)])
def test_images_are_really_delivered(asked, monkeypatch, way):
    monkeypatch.setattr(bench_input, "MEASURED_SECS", 0.01)
    monkeypatch.setattr("ncjax.bench.training.MEASURED_SECS", 0.01)
    monkeypatch.setattr(bench_input, "interleave", lambda peers, rounds: asked.update(peers) or {})
    bench_input.bench_input(load_config(CONFIG), "", rounds=1)
    config = asked[bench_input.WHOLE].make_timer.args[0]
    assert getattr(bench_input, way)(config)() > 0
