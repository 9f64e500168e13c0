# SPDX-License-Identifier: Apache-2.0
"""The tables of an evaluation as Markdown: metrics down, splits and levels or views across."""

from collections.abc import Iterable, Sequence

from ncjax.report.groups import MISSING, significant
from ncjax.report.markdown import markdown_table
from ncjax.results import Evaluation, Measurement, Row, Scope

SPLITS = ("train", "test")
MOST_NUMBERS = 10  # of a metric of several, such as a spectrum


def evaluation_summary(evaluation: Evaluation) -> str:
    """Returns Markdown of all metrics of every row; ± is the standard deviation over resamples of the examples.

    For each row: metrics of the coarse and the fine labels, of the fine classes inside super-classes, accuracies of
    probes and of CLP on the test split, metrics of the clusters, and what was left out. Then the law of separation
    and the notes.
    """
    parts = []
    for row in evaluation.rows:
        title = _title(row, evaluation.rows)
        if row.bootstrap:
            title = f"{title}: ± over {row.bootstrap} resamples of the examples".removeprefix(": ")
        tables = (_levels, _inside, _own_accuracy, _accuracies, _clusters)
        parts += [title, *(table(row, evaluation) for table in tables)]
        parts += ["Left out:\n\n" + "\n".join(f"- {line}" for line in row.left_out)] if row.left_out else []
    if evaluation.separation:
        lines = [["law of separation", "slope of log D a layer", "R2"]]
        several = len({fit.name for fit in evaluation.separation}) > 1
        for fit in evaluation.separation:
            name = f"{fit.level}_{fit.split}"
            lines.append([f"{fit.name}: {name}" if several else name, _text(fit.slope), _text(fit.r2)])
        parts.append(markdown_table(lines))
    return "\n\n".join(part for part in (*parts, *evaluation.notes) if part)


def _title(row: Row, rows: Sequence[Row]) -> str:
    """What tells the row from the others: its name, epoch and layer; empty where it is the only one."""
    if len(rows) == 1:
        return ""
    facts = [row.name]
    facts += [f"epoch {row.epoch}"] if row.epoch is not None and len({one.epoch for one in rows}) > 1 else []
    facts += [f"layer {row.layer}"] if len({one.layer for one in rows}) > 1 else []
    return ", ".join(facts)


def _metrics(evaluation: Evaluation, scope: Scope) -> dict[str, str]:
    """Labels of the metrics of a scope, by name."""
    return {name: info.label for name, info in evaluation.metrics.items() if info.scope == scope}


def _measured(row: Row, metrics: Iterable[str]) -> tuple[Measurement, ...]:
    names = set(metrics)
    return tuple(m for m in row.measurements if m.metric in names)


def _levels(row: Row, evaluation: Evaluation) -> str:
    metrics, of_all = _metrics(evaluation, "level"), _metrics(evaluation, "all")
    present = {(m.split, m.level) for m in _measured(row, metrics)}
    columns = [(split, level) for split in SPLITS for level in ("coarse", "fine") if (split, level) in present]
    lines = [["measure", *(f"{level}, {split}" for split, level in columns)]]
    lines += [[label, *(_cell(row, name, split, level) for split, level in columns)] for name, label in metrics.items()]
    for name, label in of_all.items():
        for split in dict.fromkeys(split for split, _ in columns):
            lines.append([f"{label}, {split}", _cell(row, name, split, "all"), *[""] * (len(columns) - 1)])
    return markdown_table(lines) if columns else ""


def _inside(row: Row, evaluation: Evaluation) -> str:
    metrics = _metrics(evaluation, "within")
    present = {m.split for m in _measured(row, metrics)}
    splits = [split for split in SPLITS if split in present]
    lines = [["inside super-classes", *splits]]
    lines += [[label, *(_cell(row, name, split, "within") for split in splits)] for name, label in metrics.items()]
    return markdown_table(lines) if splits else ""


def _own_accuracy(row: Row, evaluation: Evaluation) -> str:
    """Accuracies of the network itself on the labels that it was trained with."""
    labels = _metrics(evaluation, "accuracy")
    measured = [m for m in _measured(row, labels) if m.value is not None]
    lines = [[f"{labels[m.metric]}, {m.split}", _percent(m.value)] for m in measured]
    return markdown_table([["the network itself", "%"], *lines]) if lines else ""


def _accuracies(row: Row, evaluation: Evaluation) -> str:
    probes_and_evidence = _metrics(evaluation, "probe")
    labels = {name: x for name, x in probes_and_evidence.items() if evaluation.metrics[name].better == "higher"}
    probes = {m.metric: m.value for m in _measured(row, labels) if m.split == "test" and m.value is not None}
    views = {m.view: m.value for m in _measured(row, ["clp"]) if m.view is not None and m.value is not None}
    lines = [[labels[name], _percent(probes[name])] for name in labels if name in probes]
    lines += [[f"CLP: {_view(name, evaluation)}", _percent(value)] for name, value in views.items()]
    return markdown_table([["test accuracy on fine labels", "%"], *lines]) if lines else ""


def _clusters(row: Row, evaluation: Evaluation) -> str:
    labels = _metrics(evaluation, "clp")
    found = {(m.metric, m.split, m.level, m.view): m for m in _measured(row, labels) if m.metric != "clp"}
    views = list(dict.fromkeys(view for *_, view in found if view is not None))
    lines = [["clusters inside super-classes", *(_view(view, evaluation) for view in views)]]
    for name, split, level in dict.fromkeys(key[:3] for key in sorted(found, key=lambda key: _order(key, labels))):
        cells = [found.get((name, split, level, view)) for view in views]
        lines.append([f"{labels[name]}, {split}", *(_text(one.value if one else None) for one in cells)])
    return markdown_table(lines) if views else ""


def _order(key: tuple[str, str, str, str | None], labels: Iterable[str]) -> tuple[int, bool]:
    return list(labels).index(key[0]), key[1] != "train"


def _view(name: str, evaluation: Evaluation) -> str:
    return evaluation.views[name].label if name in evaluation.views else name


def _cell(row: Row, metric: str, split: str, level: str) -> str:
    found = [m for m in row.measurements if (m.metric, m.split, m.level, m.view) == (metric, split, level, None)]
    if found and found[0].index is not None:
        numbers = [_text(m.value) for m in sorted(found, key=lambda m: m.index or 0)]
        return " ".join(numbers[:MOST_NUMBERS]) + (" ..." if len(numbers) > MOST_NUMBERS else "")
    value, std = (found[0].value, found[0].std) if found else (None, None)
    return _text(value) if value is None or std is None else f"{_text(value)} ± {significant(std, 1)}"


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _text(value: float | None) -> str:
    return MISSING if value is None else significant(value, 3)
