# SPDX-License-Identifier: Apache-2.0
"""A whole sweep in a work directory: groups of runs, one file of results, and pictures of the hidden representation."""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ncjax.distributed.environment import environment
from ncjax.events import stage
from ncjax.paths import user_path
from ncjax.storage.atomic import remove_folder, write_arrays, write_json
from ncjax.storage.workdir import open_workdir, read_json
from ncjax.theory.config import Settings, Shape, TheoryConfig, settings_of, shapes_of
from ncjax.theory.network import hidden
from ncjax.theory.predictions import predict
from ncjax.theory.simulate import make_problem, record_steps, train_network
from ncjax.theory.sweep import read_means, read_part, run_sweep, runs_of
from ncjax.typed_json import structure, unstructure

SUMMARY = "results/theory.json"
PICTURES = 4  # times at which the hidden representation is drawn


@dataclass(frozen=True, kw_only=True)
class TheorySummary:
    """How a sweep went: results/theory.json."""

    runs: int
    diverged: int
    wall_secs: float  # of the command that finished it


def run_theory(config: TheoryConfig, workdir: str | Path, command: str) -> Path:
    """Computes a sweep, or the rest of it, and writes results/theory.npz and results/theory.json.

    The file holds `runs/NAME [run]` (shape, settings, seed, number of the setting), `steps [t]`,
    `metrics/NAME [run t]`, `diverged [run]`, `predictions/NAME [setting t]` where the config names a prediction, and
    `pictures/...` (see `pictures`). A diverged run's metrics are NaN from the record on that shows it.

    Args:
        config: the sweep.
        workdir: where everything is written; a sweep that was killed continues with its first missing group.
        command: the command line, kept with the results.

    Returns:
        The path of results/theory.npz.

    Raises:
        UserError: the work directory holds a sweep of another config, or the user's means do not fit.
    """
    workdir = user_path(workdir)
    result = workdir / "results" / "theory.npz"
    open_workdir(workdir, config, command, environment())
    if result.exists():
        return result
    started, parts = time.perf_counter(), workdir / "parts"
    files = list(run_sweep(config, parts))
    found = [read_part(path) for path in files]
    metrics = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    diverged = metrics.pop("diverged")
    arrays = {f"runs/{name}": column for name, column in runs_of(config).items()}
    arrays |= {"steps": record_steps(config.descent), "diverged": diverged}
    arrays |= {f"metrics/{name}": values for name, values in metrics.items()}
    with stage("predictions and pictures", config.name):
        arrays |= _predictions(config) | pictures(config)
    secs = round(time.perf_counter() - started, 2)
    summary = TheorySummary(runs=len(diverged), diverged=int(diverged.sum()), wall_secs=secs)
    write_json(workdir / SUMMARY, unstructure(summary))
    write_arrays(result, arrays)  # last: where it is, the sweep is done
    remove_folder(parts)
    return result


def read_summary(workdir: Path) -> TheorySummary:
    """Reads results/theory.json.

    Raises:
        UserError: it is missing or damaged.
    """
    path = workdir / SUMMARY
    return structure(TheorySummary, read_json(path), f"{path} does not fit; move results/ away and run again")


def _predictions(config: TheoryConfig) -> dict[str, Float[np.ndarray, "setting t"]]:
    steps = record_steps(config.descent)
    found = [predict(config, shape, settings, steps) for shape in shapes_of(config) for settings in settings_of(config)]
    sound = [prediction for prediction in found if prediction is not None]
    if not sound:
        return {}
    return {f"predictions/{name}": np.stack([p._asdict()[name] for p in sound]) for name in sound[0]._fields}


def pictures(config: TheoryConfig) -> dict[str, np.ndarray]:
    """Seed 0 of the first and of the last setting (and shape), on two axes, at a few times.

    The axes are the first two principal axes of the hidden representations at that time: `pictures/N/points [t n 2]`,
    `pictures/N/component [n]`, `pictures/N/steps [t]` for `N` 0 and 1.
    """
    steps, arrays = record_steps(config.descent), {}
    drawn = np.unique(np.linspace(0, len(steps) - 1, PICTURES).round().astype(int))
    ends = [(shapes_of(config)[i], settings_of(config)[i]) for i in (0, -1)]
    for number, (shape, settings) in enumerate(ends[: 1 if ends[0] == ends[1] else 2]):
        features, component = hidden_over_time(config, shape, settings)
        arrays[f"pictures/{number}/points"] = np.stack([_two_axes(features[i]) for i in drawn])
        arrays[f"pictures/{number}/component"] = component
        arrays[f"pictures/{number}/steps"] = steps[drawn]
    return arrays


def hidden_over_time(
    config: TheoryConfig, shape: Shape, settings: Settings, seed: int = 0
) -> tuple[Float[np.ndarray, "t n m"], Int[np.ndarray, "n"]]:
    """The hidden representation of the training examples at every record, and their Gaussians."""
    means = read_means(config, shape.dimension)
    user_means = None if means is None else jnp.asarray(means)

    @jax.jit
    def run(numbers: Settings, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        problem = make_problem(config, shape, numbers, number, user_means)
        inputs = problem.train.inputs
        features = train_network(config, numbers, number, problem, lambda net, _: hidden(net, config.network, inputs))
        return features, problem.train.component

    features, component = run(Settings(*map(jnp.float32, settings)), jnp.uint32(seed))
    return np.asarray(features), np.asarray(component)


def _two_axes(points: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n 2"]:
    centred = np.nan_to_num(points - points.mean(axis=0)) / points.shape[1] ** 0.5
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    two = (left * singular)[:, :2]
    return np.pad(two, ((0, 0), (0, 2 - two.shape[1]))).astype(np.float32)
