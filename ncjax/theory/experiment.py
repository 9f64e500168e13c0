# SPDX-License-Identifier: Apache-2.0
"""A whole sweep in a work directory: batches, one file of results, and pictures of the hidden representation."""

import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ncjax.theory.config import Settings, Shape, TheoryConfig, check_theory, settings_of, shapes_of
from ncjax.theory.network import hidden
from ncjax.theory.predictions import predict
from ncjax.theory.simulate import make_problem, record_steps, train
from ncjax.theory.sweep import read_means, read_part, runs_of, save_arrays, sweep
from ncjax.storage.workdir import open_workdir, write_json

PICTURES = 4  # times at which the hidden representation is drawn


def run_theory(config: TheoryConfig, workdir: Path, command: str) -> Path:
    """Compute a sweep, or what is left of it, and write results/theory.npz, whose path is returned.

    The file holds `runs/NAME [run]` (shape, settings, seed, number of the setting), `steps [t]`,
    `metrics/NAME [run t]`, `diverged [run]`, `predictions/NAME [setting t]` where the config names a prediction, and
    `pictures/...` (see `pictures`). A diverged run's metrics are NaN from the record on that shows it.

    Raises:
        UserError: the config or the work directory does not fit.
    """
    check_theory(config)
    result = workdir / "results" / "theory.npz"
    open_workdir(workdir, config, command)
    if result.exists():
        return result
    started, parts = time.perf_counter(), workdir / "parts"
    files = list(sweep(config, parts))
    found = [read_part(path) for path in files]
    metrics = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    diverged = metrics.pop("diverged")
    arrays = {f"runs/{name}": column for name, column in runs_of(config).items()}
    arrays |= {"steps": record_steps(config.descent), "diverged": diverged}
    arrays |= {f"metrics/{name}": values for name, values in metrics.items()}
    save_arrays(result, arrays | _predictions(config) | pictures(config))
    shutil.rmtree(parts)
    secs = time.perf_counter() - started
    summary = {"runs": len(diverged), "diverged": int(diverged.sum()), "wall_secs": round(secs, 2)}
    write_json(workdir / "results" / "theory.json", summary)
    print(f"{summary['runs']} runs, {summary['diverged']} diverged, in {secs:.1f} s")
    return result


def _predictions(config: TheoryConfig) -> dict[str, Float[np.ndarray, "setting t"]]:
    steps = record_steps(config.descent)
    found = [predict(config, shape, settings, steps) for shape in shapes_of(config) for settings in settings_of(config)]
    sound = [prediction for prediction in found if prediction is not None]
    if not sound:
        return {}
    return {f"predictions/{name}": np.stack([p._asdict()[name] for p in sound]) for name in sound[0]._fields}


def pictures(config: TheoryConfig) -> dict[str, np.ndarray]:
    """Seed 0 of the first and of the last setting (and shape), on two axes, at a few times.

    The axes are the first two principal ones of the hidden representations at that time: `pictures/N/points [t n 2]`,
    `pictures/N/component [n]`, `pictures/N/steps [t]` for `N` 0 and 1.
    """
    steps, arrays = record_steps(config.descent), {}
    chosen = np.unique(np.linspace(0, len(steps) - 1, PICTURES).round().astype(int))
    ends = [(shapes_of(config)[i], settings_of(config)[i]) for i in (0, -1)]
    for number, (shape, settings) in enumerate(ends[: 1 if ends[0] == ends[1] else 2]):
        features, component = hidden_over_time(config, shape, settings)
        arrays[f"pictures/{number}/points"] = np.stack([_two_axes(features[i]) for i in chosen])
        arrays[f"pictures/{number}/component"] = component
        arrays[f"pictures/{number}/steps"] = steps[chosen]
    return arrays


def hidden_over_time(
    config: TheoryConfig, shape: Shape, settings: Settings, seed: int = 0
) -> tuple[Float[np.ndarray, "t n m"], Int[np.ndarray, "n"]]:
    """The hidden representation of the training examples at every record, and their Gaussians."""
    read = read_means(config, shape.dimension)
    given = None if read is None else jnp.asarray(read)

    @jax.jit
    def run(numbers: Settings, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        problem = make_problem(config, shape, numbers, number, given)
        inputs = problem.train.inputs
        features = train(config, numbers, number, problem, lambda net, _: hidden(net, config.network, inputs))
        return features, problem.train.component

    features, component = run(Settings(*map(jnp.float32, settings)), jnp.uint32(seed))
    return np.asarray(features), np.asarray(component)


def _two_axes(points: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n 2"]:
    centred = np.nan_to_num(points - points.mean(axis=0)) / points.shape[1] ** 0.5
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    two = (left * singular)[:, :2]
    return np.pad(two, ((0, 0), (0, 2 - two.shape[1]))).astype(np.float32)
