# SPDX-License-Identifier: Apache-2.0
"""Puts the tables and figures of a work directory, or of an evaluation, on one self-contained HTML page."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ncjax.errors import UserError
from ncjax.paths import user_path
from ncjax.report.figure import Figure, load_altair, unchecked
from ncjax.report.main_result import headline, tiles
from ncjax.report.missing import list_missing
from ncjax.report.number_formats import MISSING
from ncjax.report.read import Results, read_results, results_of
from ncjax.report.sections import Content, figures_of_content, run_sections
from ncjax.report.side_by_side import check_comparable, side_by_side, side_by_side_sections
from ncjax.report.templates import render
from ncjax.report.theory import figures_of_theory, holds_theory, read_sweep, write_theory_report
from ncjax.results import Evaluation
from ncjax.storage.atomic import write_text
from ncjax.storage.metrics import Record

NO_NETWORK = "These results hold no network trained on coarse labels."
Source: TypeAlias = str | Path | Evaluation
PAGE = "report.html"


def write_report(source: Source | Sequence[Source], path: str | Path | None = None) -> Path:
    """Writes a page: headline, tables with controls, figures over epochs, examples, how it was made, what is missing.

    The page is one file, needs no network, and follows the reader's light or dark setting. Numbers are those of
    `results/evaluation.json`; members that differ only by their seed are shown as mean ± sample standard deviation.

    Args:
        source: a work directory after `ncjax evaluate` or `ncjax theory`, or an `Evaluation`; several are put side by
            side.
        path: of the page; None: `report.html` in the work directory, or here for several.

    Returns:
        The path of the page.

    Raises:
        UserError: a result file is missing or damaged, or several results cannot be compared; says what and why.
    """
    sources = [source] if isinstance(source, str | Path | Evaluation) else list(source)
    if not sources:
        raise UserError("there is nothing to report: give a work directory, or an evaluation")
    if len(sources) == 1 and isinstance(sources[0], str | Path):
        workdir = user_path(sources[0])
        target = workdir / PAGE if path is None else user_path(path)
        if holds_theory(workdir):
            return write_theory_report(workdir, target)
    else:
        target = user_path(PAGE if path is None else path)
    found = [_read(one) for one in sources]
    with unchecked():
        page = render_page(found[0]) if len(found) == 1 else render_side_by_side(found)
    write_text(target, page)
    return target


def _read(source: Source) -> Results:
    if isinstance(source, Evaluation):
        return results_of(source)
    workdir = user_path(source)
    if holds_theory(workdir):
        raise UserError(f"{workdir} holds a sweep of the synthetic setting, which is not compared with runs on images")
    return read_results(workdir)


def figures_of(source: Source) -> dict[str, Figure]:
    """Returns the figures of a page by name; `.chart` is of Altair and shows itself in a notebook.

    Args:
        source: as for `write_report`, a single one.

    Raises:
        UserError: a result file is missing or damaged.
    """
    load_altair()
    if not isinstance(source, Evaluation) and holds_theory(user_path(source)):
        return {figure.name: figure for figure in figures_of_theory(read_sweep(user_path(source)))}
    return {figure.name: figure for figure in figures_of_content(Content(_read(source)))}


def render_page(results: Results) -> str:
    """Returns the HTML of results."""
    content = Content(results)
    evaluation, main = results.evaluation, content.main
    said = (content.shown, content.views, results.headline)
    return render(
        "report.html.j2",
        {
            "title": title_of(results),
            "headline": headline(main, *said) if main else NO_NETWORK,
            "tiles": tiles(main, *said) if main else (),
            "failed": _failed_members(results.metrics),
            "notes": evaluation.notes,
            "sections": run_sections(content),
            "missing": list_missing(results, content.shown, content.labels, main, content.views),
            "facts": facts(results),
            "members": [row.name for row in evaluation.rows if row.member is not None],
            "config": json.dumps(results.config, indent=2),
            "command": figure_command(results),
        },
    )


def title_of(results: Results) -> str:
    """The name of a run and of its data."""
    provenance = results.evaluation.provenance
    if results.workdir is None and not provenance.name:
        return "Features from files"
    return f"{provenance.name or 'ncjax'} on {provenance.dataset or 'unnamed data'}"


def figure_command(results: Results) -> str:
    """What writes the figures of a page again as files; of features from files the command that evaluated them."""
    if results.workdir is None:
        return results.evaluation.provenance.command or MISSING
    return f"ncjax report {shlex.quote(str(results.workdir))} --figures figures"


def render_side_by_side(runs: Sequence[Results]) -> str:
    """Returns the HTML of several results beside each other.

    Raises:
        UserError: they cannot be compared; says why.
    """
    check_comparable(runs)
    compared = side_by_side(runs, [title_of(one) for one in runs])
    return render(
        "side_by_side.html.j2",
        {
            "title": f"{len(runs)} runs side by side",
            "sections": side_by_side_sections(compared),
            "runs": [(one.label, facts(one.content.results)) for one in compared],
            "command": "ncjax report " + " ".join(shlex.quote(str(one.workdir)) for one in runs if one.workdir),
        },
    )


def _failed_members(metrics: Sequence[Record]) -> list[tuple[str, int]]:
    """Members whose training loss stopped being a number, each with the first step that shows it."""
    failed: dict[str, int] = {}
    for record in metrics:
        for member, loss in record.values.get("train_loss", {}).items():
            if loss is None or not np.isfinite(loss):
                failed.setdefault(member, record.step)
    return list(failed.items())


def facts(results: Results) -> list[tuple[str, str]]:
    """What was run, on what, for how long, and where it went on: pairs of name and value."""
    provenance, metrics = results.evaluation.provenance, results.metrics
    resumed = [f"after epoch {start.epoch} (step {start.step:,})" for start in results.starts if start.step]
    found: Mapping[str, str] = {
        "Command": provenance.command,
        "Data": provenance.dataset,
        "Device": provenance.device,
        "Wall-clock": ", ".join(f"{name} {_duration(secs)}" for name, secs in provenance.wall_secs.items()),
        "Versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
        "Commit": provenance.commit or "",
        "Epochs trained": f"{metrics[-1].epoch:,}, {metrics[-1].step:,} steps" if metrics else "",
        "Resumed": ", ".join(resumed) or ("never" if results.starts else ""),
    }
    return [(name, value or MISSING) for name, value in found.items()]


def _duration(secs: float | None) -> str:
    if secs is None:
        return MISSING
    if secs < 60:
        return f"{secs:.1f} s"
    hours, rest = divmod(round(secs), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
