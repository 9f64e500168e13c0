# SPDX-License-Identifier: Apache-2.0
"""`ncjax evaluate`: a run's work directory, or features from anywhere."""

import os
from collections.abc import Callable
from pathlib import Path

import tyro

from ncjax.config import Variant
from ncjax.errors import UserError
from ncjax.cli.parsing import command, parse

SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth")  # of files of features


def evaluate_verb(arguments: list[str], join: Callable[[], None]) -> None:
    """Measure a run, or files of features; `join` meets the other processes of a run.

    Raises:
        UserError: the arguments do not fit, or what they name cannot be read or written.
    """
    paths, variants, sources, label_map, bootstrap, output = parse("evaluate", _options, arguments)
    if not paths:
        raise UserError("ncjax evaluate needs a run's work directory, or a file of features")
    if bootstrap < 0 or bootstrap == 1:
        raise UserError(f"bootstrap is {bootstrap}, but must be 0 or at least 2")
    if len(paths) == 1 and not paths[0].is_file() and paths[0].suffix not in SUFFIXES:
        if any(sources) or label_map or output:
            raise UserError(f"{paths[0]} is a run's work directory: its labels and results have their place there")
        join()
        from ncjax.pipeline import evaluate
        from ncjax.distributed.processes import on_main_process

        path = evaluate(paths[0], variants, bootstrap=bootstrap)
        on_main_process(lambda: print(f"results: {path.absolute()}"))
        return
    _evaluate_files(paths, variants, sources, label_map, bootstrap, output, command("evaluate", arguments))


def _options(
    paths: tyro.conf.Positional[tuple[Path, ...]],
    variants: tuple[Variant, ...] = (),
    labels: str = "",
    test: str = "",
    test_labels: str = "",
    classifier: str = "",
    label_map: str = "",
    bootstrap: int = 20,
    output: Path | None = None,
) -> tuple[tuple[Path, ...], tuple[Variant, ...], tuple[str, str, str, str], str, int, Path | None]:
    """Measure features: k-means, probes, collapse to coarse and fine labels; of a run, or of files from anywhere.

    Args:
        paths: Work directory of a run, or a file of features; several files are layers, in order
            [folder, or .npz, .npy, .safetensors, .pt].
        variants: What k-means sees [raw, normalised, residual_pca, tsne; none named: those of the config, or the
            first three].
        labels: Of a file: the fine labels [file, or name in the file of features; none: train_labels, ...].
        test: Of a file: features of the test split [the same; none: test_features or test, where there].
        test_labels: Of a file: their labels [the same; none: test_labels, ..., where there].
        classifier: Of a file: another file with weights [classes features] and bias [file; none: in the same].
        label_map: Of a file: which classes are merged [mod:C, adjacent:C, file:PATH, ...; none: no coarse labels].
        bootstrap: Resamples for standard deviations where there is one network [resamples; 0: none].
        output: Of a file: JSON with the results [path; none: only printed].
    """
    return paths, variants, (labels, test, test_labels, classifier), label_map, bootstrap, output


def _evaluate_files(
    paths: tuple[Path, ...],
    variants: tuple[Variant, ...],
    sources: tuple[str, str, str, str],
    label_map: str,
    bootstrap: int,
    output: Path | None,
    line: str,
) -> None:
    from ncjax.features.readers import Sources, evaluate_files
    from ncjax.report.collapse import collapse_summary
    from ncjax.storage.workdir import environment, write_json

    if output is not None and (output.is_dir() or not os.access(output.parent, os.W_OK)):
        raise UserError(f"cannot write {output}; choose another --output, in a folder that is there")
    wanted = {"variants": variants} if variants else {}
    found = evaluate_files(paths, Sources(*sources), label_map or None, bootstrap=bootstrap, **wanted)
    print(collapse_summary(found))
    if output is not None:
        write_json(output, {"command": line, **environment(), **found})
        print(f"\nresults: {output.absolute()}")
