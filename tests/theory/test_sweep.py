# SPDX-License-Identifier: Apache-2.0
"""Sweeps: one run alone and in company, on one device and on eight, killed and resumed, diverged, and in memory."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.cluster import match_clusters
from ncjax.theory import sweep as sweep_module
from ncjax.theory.config import (
    DescentConfig,
    MixtureConfig,
    NetworkConfig,
    Settings,
    TheoryConfig,
    settings_of,
    shapes_of,
)
from ncjax.theory.experiment import run_theory
from ncjax.theory.record import coordinates, geometry, recovery
from ncjax.theory.simulate import make_problem, record_steps, simulate
from ncjax.theory.sweep import (
    Batch,
    batch_inputs,
    list_batches,
    make_program,
    read_means,
    run_bytes,
    runs_of,
    step_bytes,
)

ROOT = Path(__file__).parents[2]


def small(**changed):
    base = TheoryConfig(
        name="small",
        seeds=3,
        mixture=MixtureConfig(dimension=(6,), train=(24,), test=12, noise=(0.2, 0.5), label_noise=(0.1,)),
        network=NetworkConfig(width=(10,), init_scale=(0.1,)),
        descent=DescentConfig(steps=30, records=4, lr=(0.1, 0.3), restarts=0, batch=8),
    )
    return dataclasses.replace(base, **changed)


def test_a_run_is_the_same_alone_and_side_by_side_on_one_device_and_on_eight(monkeypatch):
    config, (shape,) = small(), shapes_of(small())
    inputs = batch_inputs(config, Batch(shape, 0, 12))
    single = jax.jit(lambda settings, seed: simulate(config, shape, settings, seed))
    alone = [single(Settings(*(jnp.asarray(column[i]) for column in inputs[0])), inputs[1][i]) for i in (0, 7)]
    found = [make_program(config, shape, 12, devices=1)(*inputs, None)]  # side by side
    monkeypatch.setattr(sweep_module, "CACHE_BYTES", 0)
    found.append(make_program(config, shape, 12, devices=8)(*inputs, None))  # one after the other
    for name, values in found[0].metrics.items():
        assert values.shape == (12, len(record_steps(config.descent)))
        for other in found[1:]:
            np.testing.assert_allclose(other.metrics[name], values, rtol=2e-3, atol=2e-5, err_msg=name)
        for i, run in zip((0, 7), alone, strict=True):
            np.testing.assert_allclose(run.metrics[name], values[i], rtol=2e-3, atol=2e-5, err_msg=name)
    assert np.ptp(found[0].metrics["train_loss"][:, -1]) > 0


def test_geometry_is_that_of_all_pairs_of_examples():
    config = TheoryConfig(mixture=MixtureConfig(labels=2, components=3))
    rng = np.random.default_rng(0)
    component = np.repeat(np.arange(6), [5, 4, 3, 6, 2, 4])
    features = rng.standard_normal((6, 8))[component] + 0.3 * rng.standard_normal((24, 8)) + 1
    found = geometry(jnp.asarray(features, jnp.float32), jnp.asarray(component, jnp.int32), config)
    squares = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
    blocks = np.array([[squares[component == i][:, component == j].mean() for j in range(6)] for i in range(6)])
    means = np.array([features[component == i].mean(axis=0) for i in range(6)])
    cosines = means @ means.T / np.outer(*[np.linalg.norm(means, axis=1)] * 2)
    same = np.arange(6)[:, None] // 3 == np.arange(6) // 3
    siblings = same & ~np.eye(6, dtype=bool)
    assert found.within == pytest.approx(np.diag(blocks).mean(), rel=1e-4)
    assert found.between_gaussians == pytest.approx(blocks[siblings].mean(), rel=1e-4)
    assert found.between_labels == pytest.approx(blocks[~same].mean(), rel=1e-4)
    assert found.cosine_gaussians == pytest.approx(cosines[siblings].mean(), rel=1e-4)
    assert found.cosine_labels == pytest.approx(cosines[~same].mean(), rel=1e-4)
    assert found.nc1_fine < found.nc1_coarse


def test_fewer_coordinates_keep_all_inner_products():
    features = jax.random.normal(jax.random.key(0), (10, 50))
    few = coordinates(features)
    assert few.shape == (10, 10)
    np.testing.assert_allclose(few @ few.T, features @ features.T / 50, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(coordinates(features[:, :20]), features[:, :20] / 20**0.5)


def test_recovery_is_the_share_that_the_hungarian_method_finds():
    config = TheoryConfig(mixture=MixtureConfig(labels=2, components=3), descent=DescentConfig(restarts=3))
    component = np.repeat(np.arange(6), 10).astype(np.int32)
    corners = 9 * np.eye(6)[np.random.default_rng(1).permutation(6)]
    points = corners[component] + 0.1 * np.random.default_rng(2).standard_normal((60, 6))
    given = points.copy()
    given[:4] = corners[2]  # four of Gaussian 0 lie with Gaussian 2
    given[30:33] = corners[5]
    found = recovery(jax.random.key(0), jnp.asarray(given, jnp.float32), jnp.asarray(component), config)
    nearest = ((given[:, None] - corners[None]) ** 2).sum(axis=-1).argmin(axis=1).astype(np.int32)
    allowed = np.arange(6)[:, None] // 3 == np.arange(6)[None] // 3
    assert found == pytest.approx((match_clusters(nearest, component, allowed)[nearest] == component).mean())
    assert found == pytest.approx(53 / 60)


def test_diverged_runs_are_marked_and_the_others_are_sound(tmp_path):
    config = small(descent=DescentConfig(steps=40, records=3, lr=(0.1, 1e30), loss="squared", restarts=0), seeds=2)
    config = dataclasses.replace(config, network=NetworkConfig(width=(10,), trained="all"))
    with np.load(run_theory(config, tmp_path, "test")) as stored:
        diverged, lr = stored["diverged"], stored["runs/lr"]
        np.testing.assert_array_equal(diverged, lr > 1)
        for name in ("train_loss", "nc1_fine", "within"):
            assert np.isfinite(stored[f"metrics/{name}"][~diverged]).all()
            assert np.isnan(stored[f"metrics/{name}"][diverged, -1]).all()
    assert json.loads((tmp_path / "results" / "theory.json").read_text())["diverged"] == 4


def test_results_hold_every_run_of_every_shape(tmp_path):
    config = small(mixture=MixtureConfig(dimension=(4, 6), train=(8,), test=8, noise=(0.1, 0.2)), seeds=2)
    config = dataclasses.replace(config, memory_gib=1e-9, descent=DescentConfig(steps=3, lr=(0.1, 0.2), restarts=0))
    assert {batch.runs for batch in list_batches(config)} == {1}
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


def test_given_means_are_used(tmp_path):
    np.save(tmp_path / "means.npy", np.eye(4, 6)[[0, 0, 1, 1]])
    mixture = MixtureConfig(dimension=(6,), train=(8,), means="file", means_file=str(tmp_path / "means.npy"))
    config = small(mixture=mixture, seeds=1)
    given, (shape,) = read_means(config, 6), shapes_of(config)
    problem = make_problem(config, shape, settings_of(config)[0], jnp.uint32(0), jnp.asarray(given))
    np.testing.assert_array_equal(problem.means, np.eye(4, 6)[[0, 0, 1, 1]])


def test_batches_fit_the_memory_whatever_the_number_of_runs():
    config = small(seeds=25_000)
    batches = list_batches(config)
    assert sum(batch.runs for batch in batches) == 100_000
    assert max(batch.runs for batch in batches) <= 256
    (shape,) = shapes_of(config)
    few = dataclasses.replace(config, memory_gib=10 * run_bytes(config, shape) / 2**30)
    assert max(batch.runs for batch in list_batches(few)) == 10
    assert step_bytes(config, shape) < run_bytes(config, shape)
    assert len(settings_of(config)) == 4


DIES_AFTER_TWO = """
import os, signal
from ncjax.theory import sweep
save, done = sweep.save_arrays, []
def save_and_die(path, arrays):
    save(path, arrays)
    done.append(path)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
sweep.save_arrays = save_and_die
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


def test_killed_sweep_goes_on_and_ends_bit_for_bit_like_one_left_alone(tmp_path):
    assert command_line(tmp_path / "killed", DIES_AFTER_TWO).returncode == -signal.SIGKILL
    parts = sorted((tmp_path / "killed" / "parts").glob("[!.]*.npz"))
    assert len(parts) == 2
    kept = {part.name: part.stat().st_mtime_ns for part in parts}
    stays = "import shutil\nshutil.rmtree = lambda path: None"  # so that the parts can be looked at
    again = command_line(tmp_path / "killed", stays)
    assert again.returncode == 0, again.stderr
    page = (tmp_path / "killed" / "report.html").read_text()
    assert page.count("<svg") == 2
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
