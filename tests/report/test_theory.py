# SPDX-License-Identifier: Apache-2.0
"""The report of a sweep of the synthetic setting, on a small sweep with known numbers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.report import run_summary, write_report
from ncjax.report.theory import figures_of_theory
from ncjax.report.theory_read import SWEPT, read_sweep
from tests.report.rows import undrawn

__all__ = ["undrawn"]

STEPS = np.array([0, 10, 100])
METRICS = (
    "cosine_gaussians",
    "cosine_labels",
    "within",
    "between_gaussians",
    "between_labels",
    "train_loss",
    "recovery",
)


def make_sweep(folder: Path, *, predictions: bool = True) -> Path:
    """Two settings of noise and two of weight decay, two seeds each; the very first run diverged."""
    noise, decay = np.repeat([0.1, 0.1, 0.2, 0.2], 2), np.repeat([0.0, 0.5, 0.0, 0.5], 2)
    setting, runs = np.repeat(np.arange(4), 2), 8
    arrays = {f"runs/{name}": np.ones(runs) for name in SWEPT}
    arrays |= {"runs/noise": noise, "runs/weight_decay": decay, "runs/setting": setting, "steps": STEPS}
    arrays["diverged"] = np.arange(runs) == 0
    values = (1 + np.arange(runs))[:, None] / 10 * np.array([0.5, 0.7, 1.0])
    arrays |= {f"metrics/{name}": values.astype(np.float32) for name in METRICS}
    if predictions:
        arrays |= {"predictions/cosine_gaussians": np.linspace(0.5, 1, 12).reshape(4, 3)}
    picture = {
        "points": np.random.default_rng(0).normal(size=(2, 6, 2)),
        "component": np.arange(6) % 4,
        "steps": STEPS[:2],
    }
    arrays |= {f"pictures/{number}/{name}": array for number in (0, 1) for name, array in picture.items()}
    (folder / "results").mkdir(parents=True)
    np.savez(folder / "results" / "theory.npz", **arrays)
    (folder / "results" / "theory.json").write_text(json.dumps({"runs": 8, "diverged": 1, "wall_secs": 2.5}))
    config = {"name": "phase", "prediction": "relu" if predictions else "none", "mixture": {"components": 2}}
    written = {
        "config": config,
        "command": "ncjax theory",
        "versions": {"jax": "0.6.0"},
        "commit": None,
        "device": "1 x cpu",
    }
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def test_means_are_over_runs_that_did_not_diverge(tmp_path: Path) -> None:
    sweep = read_sweep(make_sweep(tmp_path))
    first, second = sweep.settings[:2]
    assert (first.runs, first.diverged) == (2, 1)
    np.testing.assert_allclose(first.mean["recovery"], 0.2 * np.array([0.5, 0.7, 1.0]), rtol=1e-6)
    assert not first.error["recovery"].any()
    np.testing.assert_allclose(second.mean["recovery"][-1], 0.35, rtol=1e-6)
    np.testing.assert_allclose(second.spread["recovery"][-1], np.std([0.3, 0.4], ddof=1), rtol=1e-6)
    np.testing.assert_allclose(second.error["recovery"][-1], second.spread["recovery"][-1] / np.sqrt(2), rtol=1e-6)


def test_table_names_what_differs_and_the_prediction(tmp_path: Path) -> None:
    head, _, first, second, *_ = run_summary(make_sweep(tmp_path)).splitlines()
    names = ["noise", "weight decay", "runs", "diverged", "cosine in a label", "cosine between labels"]
    names += ["Gaussians found by k-means", "predicted cosine in a label"]
    assert head == f"| {' | '.join(names)} |"
    assert first == "| 0.1 | 0 | 2 | 1 | 0.200 ± 0.000 | 0.200 ± 0.000 | 0.200 ± 0.000 | 0.591 |"
    assert second.startswith("| 0.1 | 0.5 | 2 | 0 | 0.350 ± 0.071 |")


@pytest.mark.parametrize("predictions", [True, False])
@pytest.mark.usefixtures("undrawn")
def test_page_has_trajectories_phase_diagram_pictures_and_facts(tmp_path: Path, predictions: bool) -> None:
    path = write_report(make_sweep(tmp_path, predictions=predictions))
    page = path.read_text()
    assert path == tmp_path / "report.html"
    assert re.findall(r'<figure id="figure-(\w+)"', page) == ["trajectories", "phase_diagram", "hidden_representation"]
    assert "phase: the synthetic setting" in page
    assert "8, 1 diverged" in page
    assert "<code>ncjax theory</code>" in page
    assert "jax 0.6.0" in page
    assert ("in which nothing is fitted" in page) == predictions


def test_figures_show_simulation_and_prediction(tmp_path: Path) -> None:
    trajectories, phase, pictures = figures_of_theory(read_sweep(make_sweep(tmp_path)))
    assert {row["n"] for row in trajectories.rows} == {1, 2}  # one run of the first setting diverged
    last = [row for row in trajectories.rows if row["quantity"] == "two Gaussians of a label" and row["time"] == 100]
    assert last[0]["predicted"] == pytest.approx(np.linspace(0.5, 1, 12)[2])
    assert {(row["quantity"], row["noise"]) for row in phase.rows} == {
        (quantity, noise)
        for quantity in ("simulated", "predicted", "Gaussians found by k-means")
        for noise in (0.1, 0.2)
    }
    assert "cosine of hidden means" in trajectories.svg()
    assert "weight decay × time" in phase.svg()
    assert len(pictures.rows) == 2 * 2 * 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", None),
        ("config.json", "{"),
        ("config.json", '{"config": {"name": "x"}}'),
        ("config.json", '{"config": {"name": "x", "prediction": "none", "mixture": 3}}'),
        ("results/theory.json", None),
        ("results/theory.json", '{"runs": 3}'),
        ("results/theory.json", "[]"),
        ("results/theory.npz", "no archive"),
    ],
)
def test_damaged_results_are_one_line(tmp_path: Path, name: str, content: str | None) -> None:
    workdir = make_sweep(tmp_path)
    (workdir / name).unlink()
    if content is not None:
        (workdir / name).write_text(content)
    for read in (run_summary, write_report):
        with pytest.raises(UserError, match="cannot be read") as caught:
            read(workdir)
        assert str(workdir) in str(caught.value)
        assert "\n" not in str(caught.value)
