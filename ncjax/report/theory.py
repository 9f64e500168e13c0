# SPDX-License-Identifier: Apache-2.0
"""The page and the table of a sweep of the synthetic setting."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ncjax.report.figure import Figure, unchecked
from ncjax.report.markdown import markdown_table
from ncjax.report.number_formats import with_spread
from ncjax.report.section import Section
from ncjax.report.table import Cell, Head, Table, TableLine
from ncjax.report.templates import render
from ncjax.report.theory_figures import phase_figure, picture_figure, trajectory_figure
from ncjax.report.theory_read import Sweep, holds_theory, read_sweep, swept_names
from ncjax.storage.atomic import write_text

__all__ = ["figures_of_theory", "holds_theory", "read_sweep", "theory_summary", "theory_table", "write_theory_report"]
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


def theory_table(sweep: Sweep) -> tuple[tuple[str, ...], ...]:
    """Returns head and lines: each setting at the last record, mean ± sample standard deviation over its sound runs."""
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
    return with_spread(mean, spread)


def theory_summary(workdir: Path) -> str:
    """Returns the table as Markdown.

    Raises:
        UserError: a result file is missing or damaged.
    """
    return markdown_table(theory_table(read_sweep(workdir)))


def write_theory_report(workdir: Path, path: Path | None = None) -> Path:
    """Writes the page of a sweep: trajectories with predictions, phase diagram, pictures, table.

    Args:
        workdir: of the sweep.
        path: of the page; None: `report.html` in the work directory.

    Raises:
        UserError: a result file is missing or damaged.
    """
    target, sweep = path or workdir / "report.html", read_sweep(workdir)
    command = f"ncjax report {shlex.quote(str(workdir))} --figures figures"
    with unchecked():
        page = render("theory.html.j2", {**_content(sweep), "command": command})
    write_text(target, page)
    return target


def figures_of_theory(sweep: Sweep) -> tuple[Figure, ...]:
    """Returns the figures of a sweep."""
    names = swept_names(sweep.settings)
    chosen = np.unique(np.linspace(0, len(sweep.settings) - 1, MOST_PANELS).round().astype(int))
    shown = [sweep.settings[number] for number in chosen]
    titles = [", ".join(f"{n.replace('_', ' ')} {s.numbers[n]:g}" for n in names) or "all runs" for s in shown]
    found = [trajectory_figure(sweep.steps, shown, titles, sweep.prediction)]
    found += [phase_figure(sweep.steps, sweep.settings)] if set(names) == {"noise", "weight_decay"} else []
    pictures = picture_figure(sweep.pictures, sweep.components, (titles[0], titles[-1]))
    return (*found, *([pictures] if pictures else []))


def _content(sweep: Sweep) -> Mapping[str, object]:
    head, *lines = theory_table(sweep)
    left_out = len(sweep.settings) - MOST_LINES
    more = f" {left_out} more settings are in results/theory.npz." if left_out > 0 else ""
    table = Table(
        "settings",
        head[0],
        tuple(map(Head, head[1:])),
        tuple(TableLine(line[0], "", tuple(map(Cell, line[1:]))) for line in lines),
        f"Mean ± sample standard deviation over the runs that did not diverge.{more}",
    )
    return {
        "title": f"{sweep.name}: the synthetic setting",
        "sections": [
            *(Section(one.name, one.title, figures=(one,)) for one in figures_of_theory(sweep)),
            Section("last_step", "At the last step", tables=(table,)),
        ],
        "facts": [
            ("Command", sweep.run.command),
            ("Runs", f"{sweep.runs:,}, {sweep.diverged} diverged"),
            ("Wall-clock", f"{sweep.wall_secs:.1f} s"),
            ("Device", sweep.run.device),
            ("Versions", ", ".join(f"{name} {value}" for name, value in sweep.run.versions.items())),
        ],
        "config": json.dumps(dict(sweep.run.config), indent=2),
    }
