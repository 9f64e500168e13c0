# SPDX-License-Identifier: Apache-2.0
"""Puts the tables and figures of a work directory on one self-contained HTML page."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncjax.report.comparison import comparison_tables
from ncjax.report.figures import accuracy_figure, curves_figure, distance_figure, epochs_figure
from ncjax.report.groups import (
    KINDS,
    MISSING,
    VARIANTS,
    Group,
    group_rows,
    headline,
    labels_of,
    last_epochs,
    main_group,
    variants_of,
)
from ncjax.report.levels import collapse_lines
from ncjax.report.read import Results, read_results
from ncjax.report.table import table_row
from ncjax.report.theory import holds_theory, write_theory_report

MANY_GROUPS = 24
NO_NETWORK = "These results hold no network trained on coarse labels."


def write_report(workdir: Path) -> Path:
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
    if holds_theory(workdir):
        return write_theory_report(workdir)
    page = render_page(read_results(workdir))
    path = workdir / "report.html"
    draft = path.with_suffix(".html.partial")
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, path)
    return path


def render_page(results: Results) -> str:
    """The HTML of checked results."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncjax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(_content(results))


def _content(results: Results) -> dict[str, Any]:
    groups = group_rows(results.rows)
    shown = last_epochs(groups)
    labels, variants = labels_of(shown), variants_of(shown)
    lead = main_group(shown)
    return {
        "title": f"{results.run.get('name') or 'ncjax'} on {results.run.get('dataset') or 'unnamed data'}",
        "headline": headline(lead, shown, variants) if lead else NO_NETWORK,
        "variants": [(name, VARIANTS.get(name, name)) for name in variants],
        "table": [
            table_row(group, label, variants) | {"lead": group is lead}
            for group, label in zip(shown, labels, strict=True)
        ],
        "several_seeds": any(len(group.rows) > 1 for group in shown),
        "collapse": collapse_lines(shown, labels),
        "comparison": comparison_tables(results.comparison) if results.comparison else (),
        "failed": _failed_members(results.metrics),
        "notes": results.notes,
        "facts": _facts(results.run),
        "config": json.dumps(results.run.get("config") or {}, indent=2),
        "figures": _figures(results, groups, shown, labels, lead),
    }


def _figures(
    results: Results, groups: Sequence[Group], shown: Sequence[Group], labels: Sequence[str], lead: Group | None
) -> dict[str, str]:
    """The SVG of each figure; empty where there is no data for it."""
    variants = variants_of(shown)
    figures = dict.fromkeys(("accuracy", "distances", "curves", "epochs"), "")
    if len(shown) <= MANY_GROUPS:
        names = [f"{KINDS.get(group.kind, group.kind)}: {label}" for group, label in zip(shown, labels, strict=True)]
        figures["accuracy"] = accuracy_figure(shown, names, variants)
    maps = _distance_maps(shown, lead)
    if maps:
        figures["distances"] = distance_figure(maps, _class_names(results.run))
    if any(record.get("train_loss") for record in results.metrics):
        figures["curves"] = curves_figure(results.metrics)
    history = _history(groups, lead) if lead else []
    if len(history) > 1:
        figures["epochs"] = epochs_figure(history, variants)
    return figures


def _history(groups: Sequence[Group], lead: Group) -> list[Group]:
    """The epochs of one setting; random initialisation is its epoch 0."""
    history = [group for group in groups if group[:4] == lead[:4]]
    start = [group for group in groups if group.kind == "random_init" and group.label_map == lead.label_map]
    return history if any(group.epoch == 0 for group in history) else start[:1] + history


def _distance_maps(shown: Sequence[Group], lead: Group | None) -> list[tuple[str, Any]]:
    """Class distances of the headline's network and of its controls, averaged over seeds."""
    maps = []
    for kind in ("trained", "fine", "random_init"):
        group = lead if kind == "trained" else next((group for group in shown if group.kind == kind), None)
        matrices = [row["class_distances"] for row in group.rows if row.get("class_distances")] if group else []
        if group and matrices:
            title = KINDS[kind] if kind == "random_init" else f"{KINDS[kind]} ({group.label_map})"
            maps.append((title, np.array(matrices, np.float64).mean(axis=0)))
    return maps


def _class_names(run: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in run.get("class_names") or ())


def _failed_members(metrics: Sequence[dict[str, Any]]) -> list[tuple[int, Any]]:
    """Members whose training loss stopped being a number, each with the first step that shows it."""
    failed: dict[int, Any] = {}
    for record in metrics:
        for member, loss in enumerate(record.get("train_loss") or []):
            if loss is None or not math.isfinite(loss):
                failed.setdefault(member, record["step"])
    return sorted(failed.items())


def _facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run, on what, for how long: pairs of name and value."""
    versions = ", ".join(f"{name} {value}" for name, value in (run.get("versions") or {}).items())
    clock = ", ".join(f"{name} {_duration(value)}" for name, value in (run.get("wall_secs") or {}).items())
    facts = (
        ("Command", run.get("command")),
        ("Data", run.get("dataset")),
        ("Device", run.get("device")),
        ("Wall-clock", clock),
        ("Versions", versions),
    )
    return [(name, str(value) if value else MISSING) for name, value in facts]


def _duration(secs: float | int | None) -> str:
    if secs is None:
        return MISSING
    if secs < 60:
        return f"{secs:.1f} s"
    hours, rest = divmod(round(secs), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
