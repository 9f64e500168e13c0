# SPDX-License-Identifier: Apache-2.0
"""Reads the results of a sweep of the synthetic setting: results/theory.npz, results/theory.json and config.json."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ncjax.errors import UserError, first_line
from ncjax.storage.npy import load_npz
from ncjax.storage.workdir import RunFile, read_json, read_run_file

SIZES = ("dimension", "train", "width")
SWEPT = (*SIZES, "angle", "norm", "noise", "imbalance", "label_noise", "gain", "init_scale", "lr", "weight_decay")

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
Series = Mapping[str, Float[np.ndarray, "t"]]


class Setting(NamedTuple):
    """Runs that differ by their seed alone; means and standard errors are over those that did not diverge."""

    numbers: Mapping[str, float]
    runs: int
    diverged: int
    mean: Series
    error: Series  # 0 with one run
    spread: Series  # sample standard deviation
    prediction: Series  # empty where there is none


class Picture(NamedTuple):
    """Hidden representations of one run on their first two principal axes."""

    steps: Int[np.ndarray, "t"]
    points: Float[np.ndarray, "t n 2"]
    component: Int[np.ndarray, "n"]  # the Gaussian of each example


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a work directory holds."""

    name: str
    prediction: str  # of which gates; none: there is none
    components: int  # Gaussians to a label
    run: RunFile  # config.json
    steps: Int[np.ndarray, "t"]
    settings: tuple[Setting, ...]
    pictures: tuple[Picture, ...]
    runs: int
    diverged: int
    wall_secs: float


def holds_theory(workdir: Path) -> bool:
    """Whether the results in a work directory are those of a sweep of the synthetic setting."""
    return (workdir / "results" / "theory.npz").is_file()


def read_sweep(workdir: Path) -> Sweep:
    """Reads the results of a sweep.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        run, summary = read_run_file(workdir), _read_summary(workdir / "results" / "theory.json")
        arrays = load_npz(workdir / "results" / "theory.npz")
        found = (_under(arrays, f"pictures/{number}/") for number in (0, 1))
        return Sweep(
            name=str(run.config["name"]),
            prediction=str(run.config["prediction"]),
            components=int(run.config["mixture"]["components"]),
            run=run,
            steps=arrays["steps"],
            settings=tuple(_setting(arrays, int(number)) for number in np.unique(arrays["runs/setting"])),
            pictures=tuple(Picture(p["steps"], p["points"], p["component"]) for p in found if p),
            **summary,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = first_line(error)
        raise UserError(
            f"the results in {workdir} cannot be read ({reason}): move results/ away and run again"
        ) from error


def _read_summary(path: Path) -> dict[str, Any]:
    """Runs, diverged runs and seconds."""
    content, found = read_json(path), {}
    for name, kinds in (("runs", (int,)), ("diverged", (int,)), ("wall_secs", (int, float))):
        value: Any = content.get(name) if isinstance(content, dict) else None
        if type(value) not in kinds or not 0 <= value < sys.float_info.max:
            raise UserError(f"{path}: {name} is {value!r}, but must be a number from 0")
        found[name] = value
    return found


def _under(arrays: Arrays, prefix: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _setting(arrays: Arrays, number: int) -> Setting:
    rows = np.flatnonzero(arrays["runs/setting"] == number)
    diverged: Bool[np.ndarray, run] = arrays["diverged"][rows]
    sound = rows[~diverged]
    metrics = {name: values[sound].astype(np.float64) for name, values in _under(arrays, "metrics/").items()}
    empty = np.full(len(arrays["steps"]), np.nan)
    spread = {name: x.std(axis=0, ddof=1) if len(x) > 1 else np.zeros(len(empty)) for name, x in metrics.items()}
    return Setting(
        numbers={name: float(arrays[f"runs/{name}"][rows[0]]) for name in SWEPT},
        runs=len(rows),
        diverged=len(rows) - len(sound),
        mean={name: x.mean(axis=0) if len(x) else empty for name, x in metrics.items()},
        error={name: x / max(len(sound), 1) ** 0.5 for name, x in spread.items()},
        spread=spread,
        prediction={name: values[number] for name, values in _under(arrays, "predictions/").items()},
    )


def swept_names(settings: tuple[Setting, ...]) -> tuple[str, ...]:
    """Returns the numbers that differ between settings."""
    return tuple(name for name in SWEPT if len({setting.numbers[name] for setting in settings}) > 1)
