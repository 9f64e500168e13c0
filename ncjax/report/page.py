# SPDX-License-Identifier: Apache-2.0
"""Puts the tables and figures of a work directory on one self-contained HTML page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ncjax.paths import user_path
from ncjax.report.comparison import comparison_tables
from ncjax.report.figures import accuracy_figure, curves_figure, distance_figure, epochs_figure
from ncjax.report.groups import KINDS, MISSING, Group, group_rows, labels_of, last_epochs, views_of
from ncjax.report.levels import collapse_tables
from ncjax.report.main_result import headline, main_group
from ncjax.report.read import Results, read_results
from ncjax.report.run_tables import table_line
from ncjax.report.templates import render
from ncjax.report.theory import holds_theory, write_theory_report
from ncjax.results import Provenance
from ncjax.storage.atomic import write_text
from ncjax.storage.metrics import Record

MANY_GROUPS = 24
NO_NETWORK = "These results hold no network trained on coarse labels."


def write_report(workdir: str | Path) -> Path:
    """Writes `report.html`: headline, tables with controls, class distances, curves, how it was made.

    The page is one file, needs no network, and follows the reader's light or dark setting. Numbers are those of
    `results/evaluation.json`; members that differ only by their seed are shown as mean ± sample standard deviation.

    Args:
        workdir: A work directory after `ncjax evaluate`, or after `ncjax theory`, whose page is another.

    Returns:
        The path of the page.

    Raises:
        UserError: A result file is missing or damaged; names it.
    """
    workdir = user_path(workdir)
    if holds_theory(workdir):
        return write_theory_report(workdir)
    path = workdir / "report.html"
    write_text(path, render_page(read_results(workdir)))
    return path


def render_page(results: Results) -> str:
    """Returns the HTML of the results of a work directory."""
    return render("report.html.j2", _content(results))


def _content(results: Results) -> Mapping[str, object]:
    evaluation, provenance = results.evaluation, results.evaluation.provenance
    groups = group_rows(evaluation.rows)
    shown = last_epochs(groups)
    labels, views = labels_of(shown), views_of(shown, evaluation.views)
    main = main_group(shown)
    return {
        "title": f"{provenance.name or 'ncjax'} on {provenance.dataset or 'unnamed data'}",
        "headline": headline(main, shown, views, results.headline) if main else NO_NETWORK,
        "views": views,
        "table": [table_line(group, label, views) for group, label in zip(shown, labels, strict=True)],
        "main": next((number for number, group in enumerate(shown) if group is main), None),
        "several_seeds": any(len(group.rows) > 1 for group in shown),
        "collapse": collapse_tables(shown, labels, evaluation.metrics),
        "comparison": comparison_tables(results.comparison, evaluation.views) if results.comparison else (),
        "comparison_left_out": results.comparison.left_out if results.comparison else (),
        "failed": _failed_members(results.metrics),
        "notes": evaluation.notes,
        "facts": _facts(provenance),
        "config": json.dumps(results.config, indent=2),
        "figures": _figures(results, groups, shown, main),
    }


def _figures(results: Results, groups: Sequence[Group], shown: Sequence[Group], main: Group | None) -> dict[str, str]:
    """The SVG of each figure; empty where there is no data for it."""
    views = views_of(shown, results.evaluation.views)
    figures = dict.fromkeys(("accuracy", "distances", "curves", "epochs"), "")
    if len(shown) <= MANY_GROUPS:
        labels = labels_of(shown, members=False)  # names of members are too long here
        names = [f"{KINDS.get(group.kind, group.kind)}: {label}" for group, label in zip(shown, labels, strict=True)]
        figures["accuracy"] = accuracy_figure(shown, names, views)
    maps = _distance_maps(shown, main)
    if maps:
        figures["distances"] = distance_figure(maps, results.evaluation.provenance.class_names)
    if any(record.values.get("train_loss") for record in results.metrics):
        figures["curves"] = curves_figure(results.metrics)
    history = _history(groups, main) if main else []
    if len(history) > 1:
        figures["epochs"] = epochs_figure(history, views)
    return figures


def _history(groups: Sequence[Group], main: Group) -> list[Group]:
    """The epochs of one setting; random initialisation is its epoch 0."""
    history = [group for group in groups if group.setting == main.setting]
    where = main.setting.super_class, main.layer
    start = [g for g in groups if g.kind == "random_init" and (g.setting.super_class, g.layer) == where]
    return history if any(group.epoch == 0 for group in history) else start[:1] + history


def _distance_maps(shown: Sequence[Group], main: Group | None) -> list[tuple[str, Float[np.ndarray, "f f"]]]:
    """Class distances of the headline's network and of its controls, averaged over seeds."""
    maps = []
    for kind in ("trained", "fine", "random_init"):
        group = main if kind == "trained" else next((group for group in shown if group.kind == kind), None)
        matrices = [row.class_distances for row in group.rows if row.class_distances] if group else []
        if group and matrices:
            title = KINDS[kind] if kind == "random_init" else f"{KINDS[kind]} ({group.label_map})"
            maps.append((title, np.array(matrices, np.float64).mean(axis=0)))
    return maps


def _failed_members(metrics: Sequence[Record]) -> list[tuple[str, int]]:
    """Members whose training loss stopped being a number, each with the first step that shows it."""
    failed: dict[str, int] = {}
    for record in metrics:
        for member, loss in record.values.get("train_loss", {}).items():
            if loss is None or not np.isfinite(loss):
                failed.setdefault(member, record.step)
    return list(failed.items())


def _facts(provenance: Provenance) -> list[tuple[str, str]]:
    """What was run, on what, for how long: pairs of name and value."""
    facts = (
        ("Command", provenance.command),
        ("Data", provenance.dataset),
        ("Device", provenance.device),
        ("Wall-clock", ", ".join(f"{name} {_duration(secs)}" for name, secs in provenance.wall_secs.items())),
        ("Versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())),
    )
    return [(name, value or MISSING) for name, value in facts]


def _duration(secs: float | None) -> str:
    if secs is None:
        return MISSING
    if secs < 60:
        return f"{secs:.1f} s"
    hours, rest = divmod(round(secs), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
