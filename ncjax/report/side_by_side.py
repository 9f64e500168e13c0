# SPDX-License-Identifier: Apache-2.0
"""Several runs beside each other: their headlines in one table and figures, and what their configs differ in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ncjax.errors import UserError
from ncjax.report.figure import COLOURS, Figure
from ncjax.report.groups import Group, Quantity
from ncjax.report.main_result import CEILING, COARSE_TEST, clp, control_groups
from ncjax.report.number_formats import MISSING, number, percent
from ncjax.report.read import Results
from ncjax.report.run_figures import WHOLE_AXIS, accuracy_figure, spread_of
from ncjax.report.section import Section
from ncjax.report.sections import Content
from ncjax.report.series import panels, said_spread
from ncjax.report.table import Cell, Head, Table, TableLine
from ncjax.typed_json import differences

QUANTITIES = {
    "accuracy on coarse labels (%)": COARSE_TEST,
    "ceiling: probe on true labels (%)": CEILING,
    "NC1 coarse": Quantity("nc1", "train", "coarse"),
    "NC1 fine": Quantity("nc1", "train", "fine"),
    "residual explained (%)": Quantity("explained_variance", "train", "within"),
}
LOG = ("NC1 coarse", "NC1 fine")


class Compared(NamedTuple):
    """One of the runs: its label, different from those of the others, and the setting of its headline."""

    label: str
    content: Content
    main: Group


def check_comparable(runs: Sequence[Results]) -> None:
    """Refuses runs whose numbers do not mean the same.

    Raises:
        UserError: data, classes, examples or the view of the headline differ, or a run has no headline; says which.
    """
    for name, found in _what_must_agree(runs).items():
        if len(set(found)) > 1:
            other = next(place for place, value in enumerate(found) if value != found[0])
            raise UserError(
                f"{_place(runs, 0)} and {_place(runs, other)} cannot be compared: their {name} differ "
                f"({_short(found[0])}, {_short(found[other])}); report them one by one"
            )
    for place, run in enumerate(runs):
        if Content(run).main is None:
            raise UserError(f"{_place(runs, place)} holds no network trained on coarse labels; leave it out")


def _what_must_agree(runs: Sequence[Results]) -> Mapping[str, list[object]]:
    """What the numbers of a headline depend on besides what is compared, of each run; None where it is not known."""
    evaluations = [run.evaluation for run in runs]
    classes = [len(row.super_class) or len(row.class_distances) for row in (one.rows[0] for one in evaluations)]
    found: dict[str, list[object]] = {
        "data sets": [one.provenance.dataset for one in evaluations],
        "fine classes": [one.provenance.class_names or count for one, count in zip(evaluations, classes, strict=True)],
        "views of the headline": [run.headline for run in runs],
    }
    known = [run.examples for run in runs if run.examples is not None]
    if len(known) == len(runs):
        found["training labels"] = [_digest(one.train_labels.tobytes()) for one in known]
        tests = [b"" if one.test_labels is None else one.test_labels.tobytes() for one in known]
        found["test labels"] = [_digest(one) for one in tests]
    return found


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()[:12]


def _place(runs: Sequence[Results], place: int) -> str:
    workdir = runs[place].workdir
    return str(workdir) if workdir is not None else f"evaluation {place + 1}"


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{text[:60]}..." if len(text) > 60 else text or "not named"


def side_by_side(runs: Sequence[Results], titles: Sequence[str]) -> list[Compared]:
    """Runs with the settings of their headlines, by title; those that share one by their folder."""
    found = list[Compared]()
    for place, (run, title) in enumerate(zip(runs, titles, strict=True), start=1):
        content = Content(run)
        assert content.main is not None
        folder = run.workdir.name if run.workdir is not None else str(place)
        label = title if titles.count(title) == 1 else f"{title} ({folder})"
        taken = [one.label for one in found]
        found.append(Compared(label if label not in taken else f"{label} [{place}]", content, content.main))
    return found


def side_by_side_sections(runs: Sequence[Compared]) -> tuple[Section, ...]:
    """A table and a figure of headlines, figures over epochs, and what the configs differ in."""
    views = {name: label for run in runs for name, label in run.content.views.items()}
    accuracies = accuracy_figure([run.main for run in runs], [run.label for run in runs], views)
    main = Section("main", "Headlines side by side", figures=(accuracies,), tables=(_headlines(runs),))
    over = tuple(_over_epochs(runs))
    sections = [main, *([Section("over_epochs", "Over training", figures=over)] if over else [])]
    return (*sections, Section("configs", "What the configs differ in", tables=(_configs(runs),)))


def _headlines(runs: Sequence[Compared]) -> Table:
    view = runs[0].content.results.headline
    named = runs[0].content.views.get(view, view)
    quantities = {f"CLP, {named} (%)": clp(view), **QUANTITIES}
    heads = [Head("n", "seeds"), Head("label map"), *map(Head, quantities), Head("control: CLP at random init (%)")]
    heads.append(Head("control: CLP of raw pixels (%)"))
    lines = []
    for run in runs:
        cells = [Cell(str(len(run.main.rows)), value=len(run.main.rows)), Cell(run.main.label_map)]
        for title, quantity in quantities.items():
            write = percent if title.endswith("(%)") else number
            cells.append(Cell(write(run.main.values(quantity)), value=run.main.mean(quantity)))
        controls = {group.kind: group for group in control_groups(run.main, run.content.shown)}
        for kind in ("random_init", "raw_pixels"):
            values = controls[kind].values(clp(view)) if kind in controls else ()
            cells.append(Cell(percent(values), value=controls[kind].mean(clp(view)) if values else None))
        lines.append(TableLine(run.label, "", tuple(cells)))
    return Table(
        "headlines",
        "Run",
        tuple(heads),
        tuple(lines),
        "The setting of each run's headline: its first label map, learning rate and weight decay. Mean ± sample "
        "standard "
        "deviation over n seeds. CLP is in the view that all configs name for the headline; a gap smaller than the "
        "spreads "
        "is noise.",
    )


def _over_epochs(runs: Sequence[Compared]) -> Iterator[Figure]:
    view = runs[0].content.results.headline
    quantities = {f"CLP, {runs[0].content.views.get(view, view)} (%)": clp(view), **QUANTITIES}
    rows = [
        {"panel": title, "run": run.label, "epoch": group.epoch or 0}
        | dict(spread_of(group, quantity, 100.0 if title.endswith("(%)") else 1.0))
        for title, quantity in quantities.items()
        for run in runs
        for group in run.content.history
    ]
    rows = [row for row in rows if row["mean"] is not None]
    if len({row["epoch"] for row in rows}) > 1:
        colours = dict(zip([run.label for run in runs], COLOURS * len(runs), strict=False))
        yield Figure(
            "runs_over_epochs",
            "The headlines over training",
            f"Epoch 0 is random initialisation. {said_spread(rows)}. {WHOLE_AXIS} Other axes are logarithmic where "
            "they "
            "say so.",
            panels(rows, by="panel", colour="run", colours=colours, log=LOG),
            rows,
        )


def _configs(runs: Sequence[Compared]) -> Table:
    configs = [run.content.results.config for run in runs]
    names = dict.fromkeys(
        name for config in configs[1:] for name, *_ in differences(dict(configs[0]), dict(config)) if name != "name"
    )
    lines = [TableLine(name, "", tuple(Cell(_at(config, name)) for config in configs)) for name in names]
    return Table(
        "differences",
        "Field",
        tuple(Head(run.label) for run in runs),
        tuple(lines),
        "Fields of the configs that are not the same in all runs."
        if lines
        else "The configs differ in nothing but names.",
    )


def _at(config: Mapping[str, object], path: str) -> str:
    value: object = config
    for name in path.split("."):
        value = value.get(name, MISSING) if isinstance(value, Mapping) else MISSING
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
