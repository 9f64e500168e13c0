# SPDX-License-Identifier: Apache-2.0
"""The page and the table of a sweep of the synthetic setting, from results/theory.npz and config.json."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncjax.errors import UserError
from ncjax.report.groups import MISSING
from ncjax.report.theory_figures import phase_figure, picture_figure, trajectory_figure

SIZES = ("dimension", "train", "width")
SWEPT = (*SIZES, "angle", "norm", "noise", "imbalance", "label_noise", "gain", "init_scale", "lr", "weight_decay")
COLUMNS = {
    "train_accuracy": "train accuracy",
    "test_accuracy": "test accuracy",
    "cosine_gaussians": "cosine in a label",
    "cosine_labels": "cosine between labels",
    "recovery": "Gaussians found by k-means",
    "nc1_coarse": "NC1 coarse",
    "nc1_fine": "NC1 fine",
}
MOST_LINES = 120
MOST_PANELS = 4


class Setting(NamedTuple):
    """Runs that differ by their seed alone; means and standard errors are over those that did not diverge."""

    numbers: dict[str, float]
    runs: int
    diverged: int
    mean: dict[str, np.ndarray]  # [t]
    error: dict[str, np.ndarray]  # [t]; 0 with one run
    spread: dict[str, np.ndarray]  # sample standard deviation
    prediction: dict[str, np.ndarray]  # [t]; empty where there is none


class Sweep(NamedTuple):
    """What a work directory holds."""

    name: str
    written: dict[str, Any]  # config.json
    steps: np.ndarray
    settings: tuple[Setting, ...]
    pictures: tuple[dict[str, np.ndarray], ...]
    summary: dict[str, Any]


def holds_theory(workdir: Path) -> bool:
    """Whether the results in a work directory are those of a sweep of the synthetic setting."""
    return (workdir / "results" / "theory.npz").is_file()


def read_sweep(workdir: Path) -> Sweep:
    """Read the results of a sweep.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        written = json.loads((workdir / "config.json").read_text())
        summary = json.loads((workdir / "results" / "theory.json").read_text())
        with np.load(workdir / "results" / "theory.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
        settings = tuple(_setting(arrays, number) for number in np.unique(arrays["runs/setting"]))
        name = written["config"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the results in {workdir} cannot be read ({error}): delete results/ and run again") from None
    pictures = [_under(arrays, f"pictures/{number}/") for number in (0, 1)]
    return Sweep(name, written, arrays["steps"], settings, tuple(p for p in pictures if p), summary)


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _setting(arrays: dict[str, np.ndarray], number: int) -> Setting:
    rows = np.flatnonzero(arrays["runs/setting"] == number)
    sound = rows[~arrays["diverged"][rows]]
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
    """The numbers that differ between settings."""
    return tuple(name for name in SWEPT if len({setting.numbers[name] for setting in settings}) > 1)


def theory_table(sweep: Sweep) -> tuple[tuple[str, ...], ...]:
    """Head and lines: each setting at the last record, mean ± sample standard deviation over its sound runs."""
    names = swept_names(sweep.settings)
    columns = {name: title for name, title in COLUMNS.items() if name in sweep.settings[0].mean}
    predicted = "cosine_gaussians" in sweep.settings[0].prediction
    head = (*(name.replace("_", " ") for name in names), "runs", "diverged", *columns.values())
    lines = [head + (("predicted cosine in a label",) if predicted else ())]
    for setting in sweep.settings[:MOST_LINES]:
        cells = [f"{setting.numbers[name]:g}" for name in names] + [str(setting.runs), str(setting.diverged)]
        cells += [_cell(setting.mean[name][-1], setting.spread[name][-1]) for name in columns]
        lines.append((*cells, *((f"{setting.prediction['cosine_gaussians'][-1]:.3f}",) if predicted else ())))
    return tuple(lines)


def _cell(mean: float, spread: float) -> str:
    if not np.isfinite(mean):
        return MISSING
    style = ".3f" if abs(mean) >= 0.01 or mean == 0 else ".1e"
    return f"{mean:{style}} ± {spread:{style}}"


def theory_summary(workdir: Path) -> str:
    """The table as Markdown."""
    head, *lines = theory_table(read_sweep(workdir))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def write_theory_report(workdir: Path) -> Path:
    """Write `report.html` of a sweep: trajectories with predictions, phase diagram, pictures, table.

    Raises:
        UserError: a result file is missing or damaged.
    """
    import jinja2

    sweep = read_sweep(workdir)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncjax.report", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("theory.html.j2").render(_content(sweep))
    path = workdir / "report.html"
    draft = path.with_suffix(".html.partial")
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, path)
    return path


def _content(sweep: Sweep) -> dict[str, Any]:
    names = swept_names(sweep.settings)
    places = np.unique(np.linspace(0, len(sweep.settings) - 1, MOST_PANELS).round().astype(int))
    shown = [sweep.settings[place] for place in places]
    titles = [", ".join(f"{n.replace('_', ' ')} {s.numbers[n]:g}" for n in names) or "all runs" for s in shown]
    config = sweep.written["config"]
    head, *lines = theory_table(sweep)
    return {
        "title": f"{sweep.name}: the synthetic setting",
        "prediction": config["prediction"],
        "trajectories": trajectory_figure(sweep.steps, shown, titles),
        "phase": phase_figure(sweep.steps, sweep.settings) if set(names) == {"noise", "weight_decay"} else "",
        "pictures": picture_figure(sweep.pictures, config["mixture"]["components"], (titles[0], titles[-1])),
        "head": head,
        "lines": lines,
        "left_out": max(0, len(sweep.settings) - MOST_LINES),
        "facts": [
            ("Command", sweep.written["command"]),
            ("Runs", f"{sweep.summary['runs']:,}, {sweep.summary['diverged']} diverged"),
            ("Wall-clock", f"{sweep.summary['wall_secs']:.1f} s"),
            ("Device", sweep.written["device"]),
            ("Versions", ", ".join(f"{name} {value}" for name, value in sweep.written["versions"].items())),
        ],
        "config": json.dumps(config, indent=2),
    }
