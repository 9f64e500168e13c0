# SPDX-License-Identifier: Apache-2.0
"""Evaluates the kept features of a run with its controls: what `ncjax evaluate WORKDIR` calls."""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.config import to_dict
from ncjax.data import Split
from ncjax.data.label_maps import LabelMap
from ncjax.distributed.agreement import check_agreement, check_devices
from ncjax.distributed.environment import environment, versions
from ncjax.distributed.processes import on_main_process
from ncjax.errors import UserError
from ncjax.evaluation.controls import (
    Part,
    describe_controls,
    distinct_maps,
    initial_parts,
    maps_left_out,
    pixel_parts,
    pixels_left_out,
    trained_parts,
)
from ncjax.evaluation.evaluator import MOST_NETWORKS, Job, check_views, evaluate_jobs
from ncjax.evaluation.examples import choose_examples
from ncjax.evaluation.store import add_views, write_evaluation
from ncjax.evaluation.views import find_view
from ncjax.events import Listener, stage, tell
from ncjax.examples import Examples
from ncjax.features.extraction import load_or_extract
from ncjax.features.feature_set import FeatureSet
from ncjax.features.run import Run
from ncjax.results import Evaluation, Provenance, TrainingSummary, join
from ncjax.storage.workdir import read_run_file


def evaluate_run(
    run: Run | str | Path,
    views: Sequence[str] = (),
    *,
    controls: bool = True,
    control_maps: int | None = None,
    bootstrap: int = 20,
    memory_gib: float | None = None,
    on_event: Listener | None = None,
) -> Evaluation:
    """Evaluates the kept features of a run with its controls.

    The rows, for each distinct label map: raw pixels, and the network at random initialization; then all members at
    every kept epoch, those of fine labels under each label map.
    Features that are missing or damaged are made again from the checkpoint of their epoch, where there is one; notes
    say so, name the epochs that are missing, and say where training has not ended: members of a cohort that is still
    being trained are rows of the epochs that they have come to.
    Writes results/evaluation.json, results/clusters/EPOCH.npz and results/examples.npz; what the first two hold of
    other views is kept. Views that are planes, which take longest, come last: who interrupts them keeps what was
    written of the others.

    Args:
        run: that has been trained, or its work directory.
        views: what k-means sees; none: those of the config.
        controls: whether raw pixels are rows.
        control_maps: how many label maps have controls of their own; None: as many as the config says.
        bootstrap: as for `ncjax.evaluate`.
        memory_gib: as for `ncjax.evaluate`; None: as the config says.
        on_event: as for `ncjax.evaluate`.

    Raises:
        UserError: the work directory holds no features, or its data cannot be read.
    """
    run, started = run if isinstance(run, Run) else Run.open(run), time.perf_counter()
    epochs, training, unfinished = _epochs(run), *_training(run)
    chosen = tuple(views) or run.config.evaluate.variants
    check_views(chosen)
    most = run.config.evaluate.control_maps if control_maps is None else control_maps
    if most < 1:
        raise UserError(f"control_maps is {most}, but must be 1 or more")
    memory = memory_gib or run.config.evaluate.memory_gib or None
    asked = {"views": chosen, "controls": controls, "control_maps": most, "bootstrap": bootstrap, "memory": memory}
    check_agreement({"config": to_dict(run.config), "evaluation": asked, "versions": versions()})
    check_devices()
    maps = distinct_maps(run.described)
    pixels = pixels_left_out(run) if controls else []
    before = [*unfinished, *training.failures, *_imported(training), *training.data]
    before += [*pixels, *maps_left_out(maps, most)]
    work = _collect(run, epochs, maps[:most], controls and not pixels, bootstrap, on_event or tell)

    write = partial(_write, run, training, before, started)
    options = {"restarts": run.config.evaluate.restarts, "memory_gib": memory, "on_event": on_event}
    planes = tuple(view for view in chosen if find_view(view).plane is not None)
    found = _evaluated(work, [view for view in chosen if view not in planes], **options)
    whole = write(found)
    return write(add_views(found, _evaluated(work, planes, metrics=(), **options), chosen)) if planes else whole


def _epochs(run: Run) -> tuple[int, ...]:
    """The epochs that are evaluated: those whose features are there, and those whose features should be."""
    if not (run.epochs or run.has_ended):
        raise UserError(f"{run.workdir} holds no features; run: ncjax train CONFIG --workdir {run.workdir}")
    return tuple(sorted({*run.epochs, *run.expected_epochs}))


def _training(run: Run) -> tuple[TrainingSummary, tuple[str, ...]]:
    """How training went, and a note for each part whose training has not ended."""
    if run.has_ended:
        return run.training, ()
    notes = []
    for number, part in enumerate(run.parts):
        if not part.has_ended:
            of_cohort = f" of the {len(part.members)} members of cohort {number}" if number else ""
            note = f"Training{of_cohort} has not ended: evaluated are the features kept so far, up to epoch "
            notes.append(f"{note}{max(part.epochs, default=0)} of {run.config.optim.epochs}.")
    return TrainingSummary(compile_secs=None, train_secs=None), tuple(notes)


def _imported(training: TrainingSummary) -> tuple[str, ...]:
    """Where weights came from, and how the images that they are measured on were normalised."""
    if not training.mean:
        return training.imported
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (training.mean, training.std))
    return (*training.imported, f"Their images were normalised with mean {mean} and deviation {std} (full scale 1).")


def _write(run: Run, training: TrainingSummary, before: Sequence[str], started: float, found: Evaluation) -> Evaluation:
    """Writes what was found, with notes and where it comes from, and returns it."""
    evaluated = round(time.perf_counter() - started, 2)
    secs = {"compile": training.compile_secs, "train": training.train_secs, "evaluate": evaluated}
    notes = (*before, *found.notes, *describe_controls(found.rows))
    whole = dataclasses.replace(found, notes=notes, provenance=_provenance(run, secs))
    on_main_process(lambda: write_evaluation(run.workdir, whole))
    return whole


class _Work(NamedTuple):
    """What is evaluated of a run: raw pixels, random initialization, then the members at every kept epoch."""

    parts: Sequence[Part]
    jobs: Sequence[Job]
    notes: Sequence[str]
    examples: Examples | None
    several_maps: bool


def _collect(
    run: Run, epochs: Sequence[int], maps: Sequence[LabelMap | None], pixels: bool, bootstrap: int, on_event: Listener
) -> _Work:
    parts, jobs, notes, newest = list[Part](), list[Job](), list[str](), None
    names = tuple(run.described.members)

    def add(more: Sequence[Part], resamples: int) -> None:
        few = sum(len(part.features.names) for part in more) <= MOST_NETWORKS
        parts.extend(more)
        jobs.extend(Job([part.features], resamples if few else 0) for part in more)

    if pixels:
        add(pixel_parts(run.dataset, maps, run.config.mesh), 0)
    with stage("read features", total=len(epochs), on_event=on_event) as advance:
        for epoch in epochs:
            advance(1, f"epoch {epoch}")
            try:
                newest, of_features = load_or_extract(run, epoch, on_disk=True)
            except UserError as error:
                notes.append(f"Epoch {epoch} is missing: {error}.")
                continue
            notes += of_features
            add(trained_parts(newest, maps, names) if epoch else initial_parts(newest, maps), bootstrap)
    if all(part.features.epoch is None for part in parts):
        raise UserError(notes[0])
    examples = None if newest is None else _examples(run, newest, next(iter(maps), None))
    return _Work(parts, jobs, notes, examples, len(maps) > 1)


def _evaluated(work: _Work, views: Sequence[str], **options: Any) -> Evaluation:
    """All together."""
    found = evaluate_jobs(work.jobs, views=views, **options)
    rows = [part.name_rows(one, work.several_maps) for part, one in zip(work.parts, found, strict=True)]
    whole = join(rows)
    return dataclasses.replace(whole, notes=(*work.notes, *whole.notes), examples=work.examples)


def _examples(run: Run, newest: FeatureSet, first_map: LabelMap | None) -> Examples:
    """What is shown of the newest features."""
    shown = dataclasses.replace(newest, default_map=first_map)
    return choose_examples(shown, images=_training_images(run))


def _training_images(run: Run) -> Split | None:
    try:
        return run.dataset.train
    except UserError:  # of arrays that are gone, or of files that have changed
        return None


def _provenance(run: Run, wall_secs: dict[str, float | None]) -> Provenance:
    written, now = read_run_file(run.workdir), environment()
    return Provenance(
        name=run.config.name,
        dataset=run.described.dataset,
        class_names=run.described.class_names,
        command=written.command,
        config=written.config,
        versions=now.versions,
        commit=now.commit,
        device=now.device,
        wall_secs=wall_secs,
    )
