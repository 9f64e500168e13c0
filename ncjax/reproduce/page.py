# SPDX-License-Identifier: Apache-2.0
"""docs/results.md: a template in which every table, figure and number is read from result files.

`{{ tables("LOG") }}` are all tables of docs/logs/LOG, `{{ value("LOG", "clp", view="raw") | f1 }}` is one number of it.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from ncjax.config import EvaluateConfig
from ncjax.errors import UserError, first_line
from ncjax.report import evaluation_summary, run_summary
from ncjax.report.groups import Quantity, group_rows, value_of
from ncjax.report.markdown import markdown_table
from ncjax.report.read import read_comparison
from ncjax.reproduce import figures
from ncjax.reproduce.experiment import Scale
from ncjax.reproduce.experiments import all_experiments
from ncjax.reproduce.finished import results_name
from ncjax.reproduce.plan import HEAD, cost_lines
from ncjax.reproduce.tables import change_table, comparison_differences, recipe_table, recovery_table, unlike
from ncjax.results import Comparison, Evaluation, TrainingSummary
from ncjax.storage.atomic import write_text
from ncjax.storage.metrics import METRICS, Record, read_records
from ncjax.storage.workdir import TRAINING, read_json, read_run_file
from ncjax.typed_json import structure

LOGS, FIGURES = "logs", "figures"  # folders beside the page
ACCURACIES = ("accuracy", "probe", "clp", "clp_oracle", "cluster_accuracy")  # that are shown in per cent
HEADLINE = EvaluateConfig.headline
DRAWINGS: dict[str, Callable[[Mapping[str, Evaluation], str], figures.Drawing]] = {
    "recovery": figures.recovery_figure,
    "collapse": figures.collapse_figure,
}


class Page(NamedTuple):
    """What a template makes."""

    text: str
    drawings: Mapping[str, figures.Drawing]


def write_page(template: Path) -> Path:
    """Writes the page of a template `NAME.md.j2` as `NAME.md`, and its figures to figures/, SVG and JSON.

    Raises:
        UserError: as `render`.
    """
    page, target = render(template), template.with_suffix("")
    for name, drawing in page.drawings.items():
        write_text(template.parent / FIGURES / f"{name}.svg", drawing.to_svg())
        write_text(template.parent / FIGURES / f"{name}.json", drawing.to_json())
    write_text(target, page.text)
    return target


def outdated(template: Path) -> tuple[str, ...]:
    """The files of a page that are not what the result files say; none: all are.

    Pictures are compared by the digest of their numbers, which they hold: another version of Vega draws them otherwise.

    Raises:
        UserError: as `render`.
    """
    page, folder = render(template), template.parent
    wanted = {template.with_suffix(""): page.text}
    wanted |= {folder / FIGURES / f"{name}.json": one.to_json() for name, one in page.drawings.items()}
    pictures = {folder / FIGURES / f"{name}.svg": one.digest for name, one in page.drawings.items()}
    found = [path.name for path, text in wanted.items() if _content(path) != text]
    return (*found, *(path.name for path, digest in pictures.items() if digest not in _content(path)))


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def render(template: Path) -> Page:
    """Fills a template from the result files beside it.

    Raises:
        UserError: the template is missing or asks for what there is not, or a result file cannot be read.
    """
    import jinja2

    logs, drawings = Logs(template.parent / LOGS), dict[str, figures.Drawing]()

    def figure(name: str, *names: str) -> str:
        drawings[name] = DRAWINGS[name]({one: logs.evaluation(one) for one in names}, HEADLINE)
        if not drawings[name].points:
            raise UserError(f"figure {name} has nothing to show of {', '.join(names)} in the view {HEADLINE}")
        return f"![{drawings[name].title}]({FIGURES}/{name}.svg)\n\n[Its numbers]({FIGURES}/{name}.json)."

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    for digits in range(4):
        environment.filters[f"f{digits}"] = partial(_fixed, digits)
    if not template.is_file():
        raise UserError(f"no template of a page at {template}")
    try:
        text = environment.from_string(template.read_text(encoding="utf-8")).render(
            **logs.functions(), figure=figure, headline=HEADLINE
        )
    except jinja2.TemplateError as error:
        raise UserError(f"{template}: {first_line(error)}") from error
    return Page(text, drawings)


def _fixed(digits: int, number: float) -> str:
    return f"{number:.{digits}f}"


class Logs:
    """What a template may ask of the result files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.evaluation = cache(self._evaluation)

    def functions(self) -> dict[str, Callable[..., object]]:
        """By the names that templates use."""
        return {
            "tables": lambda log: run_summary(self.folder / log),
            "features": lambda file: evaluation_summary(_read(self.folder.parent / file)),
            "value": self.value,
            "record": self.record,
            "training": self.training,
            "quoted": self.quoted,
            "command": lambda log: read_run_file(self.folder / log).command,
            "recovery": lambda *logs: recovery_table({log: self.evaluation(log) for log in logs}, HEADLINE),
            "changes": lambda view, *logs: change_table({log: self.evaluation(log) for log in logs}, view),
            "comparison": self.comparison,
            "differences": lambda log: comparison_differences(self.comparison(log)),
            "unlike": lambda log: unlike(self.comparison(log)),
            "recipes": self.recipes,
            "costs": self.costs,
            "finished": self.finished,
        }

    def _evaluation(self, log: str) -> Evaluation:
        return _read(self.folder / log / "results" / "evaluation.json")

    def value(
        self,
        log: str,
        metric: str,
        *,
        kind: str = "trained",
        label_map: str | None = None,
        epoch: int | None = None,
        view: str | None = None,
        split: str = "test",
        level: str = "fine",
    ) -> float:
        """The mean of a measurement over the seeds of one setting, accuracies in per cent.

        Args:
            log: name of its folder.
            metric: as `ncjax.results.Measurement` names it.
            kind: of the rows.
            label_map: of the rows; None: any, where all are of one.
            epoch: None: the last one of these rows.
            view: that was clustered.
            split: of the measurement.
            level: of the measurement.

        Raises:
            UserError: there is no such number, or the rows are of several settings.
        """
        rows = [row for row in self.evaluation(log).rows if row.kind == kind and label_map in (None, row.label_map)]
        last = max((row.epoch for row in rows if row.epoch is not None), default=None) if epoch is None else epoch
        rows = [row for row in rows if row.epoch == last]
        quantity = Quantity(metric, split, level, view)
        values = [value for row in rows if (value := value_of(row, quantity)) is not None]
        where = f"{log}: {metric} of {kind} {label_map or ''} at epoch {last}, view {view}, {split}, {level}"
        if not values:
            raise UserError(f"there is no {where}")
        if len(group_rows(rows)) > 1:
            raise UserError(f"several settings have {where}; name the label map")
        return sum(values) / len(values) * (100 if metric in ACCURACIES else 1)

    def record(self, log: str, epoch: int) -> Record:
        """The line of an epoch in metrics.jsonl.

        Raises:
            UserError: there is none.
        """
        for record in read_records(self.folder / log / METRICS):
            if record.epoch == epoch:
                return record
        raise UserError(f"{log} has no line of epoch {epoch} in {METRICS}")

    def training(self, log: str) -> TrainingSummary:
        """How a training went."""
        path = self.folder / log / TRAINING
        return structure(TrainingSummary, read_json(path), f"{path} does not fit")

    def quoted(self, file: str, pattern: str) -> str:
        """What the group of a regular expression matches first in a text file of the logs.

        Raises:
            UserError: it matches nothing.
        """
        found = re.search(pattern, (self.folder / file).read_text(encoding="utf-8"))
        if found is None:
            raise UserError(f"{file} holds nothing like {pattern!r}")
        return found[1]

    def comparison(self, log: str) -> Comparison:
        """What `ncjax compare` wrote."""
        return read_comparison(self.folder / log / "results" / "comparison.json", "restore it")

    def recipes(self, experiment: str, scale: Scale) -> str:
        """The recipes of an experiment that are there; a line that says so where none is."""
        settings = [piece.setting for piece in all_experiments()[experiment].at(scale)]
        there = {one: log for one in settings if self.has(log := results_name(experiment, one, scale))}
        return recipe_table({one: self.evaluation(log) for one, log in there.items()}) if there else "Not run yet."

    def has(self, log: str) -> bool:
        """Whether there are results of this name."""
        return (self.folder / log / "results" / "evaluation.json").is_file()

    def costs(self) -> str:
        """All experiments with their cost, and what of each is among the results."""
        lines = [("experiment", *HEAD, "results here", "question")]
        for one in cost_lines(tuple(all_experiments().values())):
            lines.append((one.name, *one.costs, ", ".join(self.finished(one.name)) or "none", one.question))
        return markdown_table(lines)

    def finished(self, experiment: str) -> tuple[str, ...]:
        """The names of the results of an experiment that are there."""
        one = all_experiments()[experiment]
        names = [results_name(experiment, piece.setting, scale) for scale in one.pieces for piece in one.at(scale)]
        return tuple(name for name in dict.fromkeys(names) if self.has(name))


def _read(path: Path) -> Evaluation:
    try:
        return Evaluation.from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
