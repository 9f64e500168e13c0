# SPDX-License-Identifier: Apache-2.0
"""Whole sweeps in a work directory: diverged, of several shapes, killed and resumed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ncjax.theory.config import DescentConfig, MixtureConfig, NetworkConfig
from ncjax.theory.experiment import TheorySummary, read_summary, run_theory
from ncjax.theory.sweep import list_groups, runs_of
from tests.theory.test_sweep import small

ROOT = Path(__file__).parents[2]


def test_diverged_runs_are_marked_and_the_others_are_sound(tmp_path):
    config = small(descent=DescentConfig(steps=40, records=3, lr=(0.1, 1e30), loss="squared", restarts=0), seeds=2)
    config = dataclasses.replace(config, network=NetworkConfig(width=(10,), trained="all"))
    with np.load(run_theory(config, tmp_path, "test")) as stored:
        diverged, lr = stored["diverged"], stored["runs/lr"]
        np.testing.assert_array_equal(diverged, lr > 1)
        for name in ("train_loss", "nc1_fine", "within"):
            assert np.isfinite(stored[f"metrics/{name}"][~diverged]).all()
            assert np.isnan(stored[f"metrics/{name}"][diverged, -1]).all()
    written = json.loads((tmp_path / "results" / "theory.json").read_text())
    assert (written["runs"], written["diverged"]) == (8, 4)
    assert read_summary(tmp_path) == TheorySummary(runs=8, diverged=4, wall_secs=written["wall_secs"])


@pytest.mark.slow
def test_results_hold_every_run_of_every_shape(tmp_path):
    config = small(mixture=MixtureConfig(dimension=(4, 6), train=(8,), test=8, noise=(0.1, 0.2)), seeds=2)
    config = dataclasses.replace(config, memory_gib=1e-9, descent=DescentConfig(steps=3, lr=(0.1, 0.2), restarts=0))
    assert {group.runs for group in list_groups(config)} == {1}
    with np.load(run_theory(config, tmp_path, "test")) as stored:
        runs = runs_of(config)
        for name, column in runs.items():
            np.testing.assert_array_equal(stored[f"runs/{name}"], column)
        assert len(runs["seed"]) == 2 * 2 * 2 * 2 == len(stored["diverged"])
        assert len({*zip(*runs.values(), strict=True)}) == 16
        assert runs["setting"][-1] == 7
        assert stored["metrics/train_loss"].shape == (16, len(stored["steps"]))
        assert stored["pictures/1/points"].shape[1:] == (8, 2)
    assert not (tmp_path / "parts").exists()
    before = (tmp_path / "results" / "theory.npz").stat().st_mtime_ns
    run_theory(config, tmp_path, "test")
    assert (tmp_path / "results" / "theory.npz").stat().st_mtime_ns == before


DIES_AFTER_TWO = """
import os, signal
from ncjax.theory import sweep
save, done = sweep.write_arrays, []
def save_and_die(path, arrays):
    save(path, arrays)
    done.append(path)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
sweep.write_arrays = save_and_die
"""


def command_line(workdir: Path, before: str = "") -> subprocess.CompletedProcess:
    program = f"{before}\nfrom ncjax.cli.main import main\nmain()"
    options = "--seeds 4 --mixture.train 8 --mixture.dimension 4 --mixture.noise 0.1 0.2 --network.width 6 "
    options += (
        "--descent.steps 20 --descent.weight-decay 0.0 --descent.records 3 --descent.restarts 1 --memory-gib 2e-5"
    )
    arguments = ["theory", str(ROOT / "configs" / "theory_phase.py"), "--workdir", str(workdir), *options.split()]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_killed_sweep_goes_on_and_ends_bit_for_bit_like_one_left_alone(tmp_path):
    assert command_line(tmp_path / "killed", DIES_AFTER_TWO).returncode == -signal.SIGKILL
    parts = sorted((tmp_path / "killed" / "parts").glob("[!.]*.npz"))
    assert len(parts) == 2
    kept = {part.name: part.stat().st_mtime_ns for part in parts}
    stays = "import shutil\nshutil.rmtree = lambda *_, **__: None"  # so that the parts can be looked at
    again = command_line(tmp_path / "killed", stays)
    assert again.returncode == 0, again.stderr
    page = (tmp_path / "killed" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "8, 0 diverged" in page
    assert "predicted cosine in a label" in again.stdout
    assert {part.name: part.stat().st_mtime_ns for part in parts} == kept
    alone = command_line(tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    with (
        np.load(tmp_path / "killed/results/theory.npz") as ours,
        np.load(tmp_path / "alone/results/theory.npz") as theirs,
    ):
        assert set(ours.files) == set(theirs.files)
        assert len(ours["diverged"]) == 8
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
