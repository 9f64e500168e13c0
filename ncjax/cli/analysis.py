# SPDX-License-Identifier: Apache-2.0
"""`ncjax features`, `ncjax evaluate` and `ncjax report`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro

from ncjax.cli.parsing import command, parse
from ncjax.cli.progress import load_jax
from ncjax.cli.tables import print_text
from ncjax.errors import UserError
from ncjax.events import stage
from ncjax.tables import names_of

if TYPE_CHECKING:
    from ncjax.results import Evaluation


def features_verb(arguments: Sequence[str]) -> None:
    """Exports kept features as npz."""

    def options(workdir: tyro.conf.Positional[Path], epochs: tuple[int, ...] = ()) -> tuple[Path, tuple[int, ...]]:
        """Export kept features as npz.

        Args:
            workdir: Work directory of a run [path].
            epochs: Which of the kept epochs [epochs; none named: all].
        """
        return workdir, epochs

    workdir, epochs = parse("features", options, arguments)
    load_jax()
    from ncjax.pipeline import export_features

    for path in export_features(workdir, epochs):
        print(f"features: {path.absolute()}")


class _Evaluate(NamedTuple):
    """What `ncjax evaluate` is asked for."""

    paths: tuple[Path, ...]
    variants: tuple[str, ...]
    labels: str
    test: str
    test_labels: str
    classifier: str
    label_map: str
    member: str
    bootstrap: int
    control_maps: int | None
    memory_gib: float | None
    output: Path | None
    report: Path | None


def _options(
    paths: tyro.conf.Positional[tuple[Path, ...]],
    variants: tuple[str, ...] = (),
    labels: str = "",
    test: str = "",
    test_labels: str = "",
    classifier: str = "",
    label_map: str = "",
    member: str = "",
    bootstrap: int = 20,
    control_maps: int | None = None,
    memory_gib: float | None = None,
    output: Path | None = None,
    report: Path | None = None,
) -> _Evaluate:
    """Evaluate features of a run, or of files: k-means, linear probes, collapse to coarse and fine labels.

    Args:
        paths: Work directory of a run, or a file or folder of features; several are layers, in order
            [folder, or .npz, .npy, .safetensors, .pt; a folder has train_features.npy, train_labels.npy, ...].
        variants: Views of the features that are clustered [names, listed below; none named: those of the config, or the
            first three].
        labels: Of a file: the fine labels [file, or name in the file of features; none: train_labels, ...].
        test: Of a file: features of the test split [the same; none: test_features or test, where there].
        test_labels: Of a file: their labels [the same; none: test_labels, ..., where there].
        classifier: Of a file: another file with weights [classes features] and bias [file; none: in the same].
        label_map: Of a file: which classes are merged [mod:C, adjacent:C, file:PATH, ...; none: no coarse labels].
        member: Of a file with several networks, such as `ncjax features` writes: which one, under the label map that
            its name begins with where no other is given [name or number; none: all].
        bootstrap: Resamples for standard deviations where there is one network [resamples; 0: none].
        control_maps: Of a run: label maps that get controls of their own [maps; none: evaluate.control_maps].
        memory_gib: Memory that may be taken; features that need more are read in blocks
            [GiB; none: evaluate.memory_gib of a run, or half of what is free].
        output: Of a file: JSON with the results [path; none: only printed].
        report: Of a file: a page with the results, as `ncjax report` writes of runs [path of .html; none: no page].
    """
    of_files = labels, test, test_labels, classifier, label_map, member
    return _Evaluate(paths, variants, *of_files, bootstrap, control_maps, memory_gib, output, report)


def evaluate_verb(arguments: Sequence[str]) -> None:
    """Evaluates a run, or files of features.

    Raises:
        UserError: the arguments do not fit, or what they name cannot be read or written.
    """
    asked = parse("evaluate", _options, arguments, _known_views)
    if not asked.paths:
        raise UserError("ncjax evaluate needs a run's work directory, or a file or folder of features")
    if asked.bootstrap < 0 or asked.bootstrap == 1:
        raise UserError(f"bootstrap is {asked.bootstrap}, but must be 0 or at least 2; change it with --bootstrap")
    if asked.control_maps is not None and asked.control_maps < 1:
        raise UserError(f"control_maps is {asked.control_maps}, but must be 1 or more; change it with --control-maps")
    if asked.memory_gib is not None and not 0 < asked.memory_gib < math.inf:
        raise UserError(f"memory_gib is {asked.memory_gib}, but must be above 0; change it with --memory-gib")
    if len(asked.paths) == 1 and _is_workdir(asked.paths[0]):
        _evaluate_run(asked.paths[0], asked)
    else:
        _evaluate_files(asked, command("evaluate", arguments))


def _is_workdir(path: Path) -> bool:
    """Whether a path is that of a run; a path where there is nothing is meant as a file if it has a suffix."""
    if not path.is_dir():
        return not (path.exists() or path.suffix)
    from ncjax.storage.feature_folders import holds_features

    return (path / "config.json").exists() or not holds_features(path)


def _known_views() -> str:
    from ncjax.evaluation.views import VIEWS

    return "known names:\n  --variants  " + ", ".join(names_of(VIEWS, "view"))


def _evaluate_run(workdir: Path, asked: _Evaluate) -> None:
    of_files = asked.labels, asked.test, asked.test_labels, asked.classifier, asked.label_map, asked.member
    if any((*of_files, asked.output, asked.report)):
        raise UserError(f"{workdir} is a run's work directory: labels, --member, --output and --report are of files")
    load_jax()
    from ncjax.distributed.processes import on_main_process

    options = {"control_maps": asked.control_maps, "bootstrap": asked.bootstrap, "memory_gib": asked.memory_gib}
    run_evaluation(workdir, asked.variants, **options)
    path = workdir / "results" / "evaluation.json"
    on_main_process(lambda: print(f"results: {path.absolute()}"))


def run_evaluation(run: Any, views: tuple[str, ...] = (), **options: Any) -> "Evaluation":
    """Evaluates the features of a run, or of its work directory, and prints notes.

    Args:
        run: as for `evaluate_run`.
        views: as for `evaluate_run`.
        options: as for `evaluate_run`.

    Returns:
        What was found.
    """
    from ncjax.distributed.processes import on_main_process
    from ncjax.pipeline import evaluate_run

    found = evaluate_run(run, views, **options)
    notes = "\n".join(f"note: {note}" for note in found.notes)
    on_main_process(lambda: print_text(notes) if notes else None)
    return found


def _evaluate_files(asked: _Evaluate, line: str) -> None:
    output = asked.output
    if asked.control_maps is not None:
        raise UserError("--control-maps is of a run's work directory, not of files of features")
    from ncjax.storage.atomic import can_write, write_text

    load_jax()
    from ncjax.distributed.processes import on_main_process

    for path, flag in ((output, "--output"), (asked.report, "--report")):
        if path is not None and not can_write(path):
            raise UserError(f"cannot write {path}; choose another {flag}")
    from ncjax.pipeline import evaluate_files
    from ncjax.report import evaluation_summary, write_report

    found = evaluate_files(
        asked.paths,
        labels=asked.labels,
        test=asked.test,
        test_labels=asked.test_labels,
        classifier=asked.classifier,
        label_map=asked.label_map or None,
        views=asked.variants or None,
        member=asked.member,
        bootstrap=asked.bootstrap,
        memory_gib=asked.memory_gib,
        command=line,
    )

    def finish() -> None:
        print_text(evaluation_summary(found))
        if output is not None:
            write_text(output, found.to_json())
            print(f"\nresults: {output.absolute()}")
        if asked.report is not None:
            print(f"\nreport: {write_report(found, asked.report).absolute()}")

    on_main_process(finish)


class _Report(NamedTuple):
    """What `ncjax report` is asked for."""

    workdirs: tuple[Path, ...]
    output: Path | None
    figures: Path | None


def report_verb(arguments: Sequence[str]) -> None:
    """Writes the report of a run and prints its main tables, or puts several runs side by side.

    Raises:
        UserError: the arguments do not fit, results are missing or damaged, or runs cannot be compared.
    """

    def options(
        workdirs: tyro.conf.Positional[tuple[Path, ...]], output: Path | None = None, figures: Path | None = None
    ) -> _Report:
        """Write report.html from the results of a run and print its main tables; of several runs, side by side.

        Args:
            workdirs: Work directory of the run; several are compared [paths].
            output: The page [path; none: report.html in the work directory, of several runs in this folder].
            figures: A folder that also gets each figure as SVG, PDF, CSV and Vega-Lite [path; none: no files].
        """
        return _Report(workdirs, output, figures)

    asked = parse("report", options, arguments)
    if not asked.workdirs:
        raise UserError("ncjax report needs a run's work directory; several are put side by side")
    if len(asked.workdirs) == 1:
        print_report(asked.workdirs[0], asked.output, asked.figures)
        return
    if asked.figures is not None:
        raise UserError("--figures is of a single run; report the runs one by one for it")
    from ncjax.report import write_report

    print(f"report: {write_report(asked.workdirs, asked.output).absolute()}")


def print_report(workdir: Path, output: Path | None = None, figures: Path | None = None) -> None:
    """Writes the report of a run; prints its main tables and where the page is.

    Args:
        workdir: of the run.
        output: the page; None: report.html in the work directory.
        figures: a folder that gets each figure as files; None: there are none.
    """
    with stage("report", str(workdir)):
        from ncjax.report import figures_of, run_summary, write_figures, write_report

        page, summary = write_report(workdir, output), run_summary(workdir)
        if figures is not None:
            write_figures(tuple(figures_of(workdir).values()), figures)
    print_text(f"\n{summary}\n")
    if figures is not None:
        print_text(f"figures: {figures.absolute()}")
    print_text(f"report: {page.absolute()}")
