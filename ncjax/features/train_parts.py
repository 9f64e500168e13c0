# SPDX-License-Identifier: Apache-2.0
"""Trains the parts of a run, one after the other, and keeps their features."""

import sys
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path

import jax

from ncjax.data import Dataset
from ncjax.distributed.processes import broadcast_message, is_main_process, on_main_process
from ncjax.errors import UserError
from ncjax.features.callbacks import Callback, call_callbacks
from ncjax.features.extraction import check_can_extract_again, check_layers, extract
from ncjax.features.feature_set import FEATURES
from ncjax.features.run import Live, Run, normalised, state_of
from ncjax.features.store import missing_features, save_features
from ncjax.ops.precision import arithmetic
from ncjax.results import TrainingSummary
from ncjax.storage.atomic import write_json
from ncjax.storage.metrics import Values
from ncjax.storage.workdir import TRAINING, read_json
from ncjax.training.checkpoints import why_not_whole
from ncjax.training.loop import Outcome, PreparedRun, fit, prepare
from ncjax.training.lowerings import choose_lowerings, kept_lowerings
from ncjax.training.state import TrainState
from ncjax.typed_json import structure, unstructure


def prepare_next(run: Run, dataset: Dataset) -> dict[Path, PreparedRun]:
    """The first part of a run whose training has not ended, else the last, by its folder; nothing is written.

    Raises:
        UserError: the config does not fit its data or the devices, or a function is not what it has to be.
    """
    part = next((part for part in run.parts if not has_all_steps(part, dataset)), run.parts[-1])
    prepared = _prepare(part, dataset)
    check_layers(prepared, run.config.evaluate.layers)
    return {part.workdir: prepared}


def _prepare(part: Run, dataset: Dataset) -> PreparedRun:
    prepared = prepare(part.config, dataset, part.own, members=part.members, outputs=part.outputs)
    return kept_lowerings(normalised(part, prepared), part.workdir)


def has_all_steps(part: Run, dataset: Dataset) -> bool:
    """Whether a part was trained to the end of the config and its last checkpoint is whole; alike on all processes."""
    steps = part.config.optim.epochs * (dataset.train.labels.size // part.config.optim.batch)

    def reason() -> str:
        return why_not_whole(part.workdir, steps) if part.has_ended else "training has not ended"

    return not broadcast_message(reason() if is_main_process() else "")


def train_part(part: Run, dataset: Dataset, prepared: PreparedRun | None, callbacks: Sequence[Callback]) -> None:
    """Train a part to its end, unless it is there, and keep the features that are asked for and not there.

    Args:
        part: of a run, or a run that has one part.
        dataset: of the run.
        prepared: of this part; None: it is prepared where that is needed.
        callbacks: as for `ncjax.train`; their run is the part.
    """
    wanted = {*part.config.evaluate.epochs, part.config.optim.epochs}
    layers = tuple(dict.fromkeys((*part.config.evaluate.layers, FEATURES)))  # what the classifier reads is always kept

    def keep(run: PreparedRun, epoch: int, state: TrainState) -> None:
        save_features(part.workdir, extract(run, state, dataset, layers, epoch, part.described))

    outcome = None
    if not has_all_steps(part, dataset):
        prepared = prepared or _prepare(part, dataset)
        outcome, kept = _fit(part, prepared, wanted, keep, callbacks)
        wanted -= kept
    for epoch in sorted(wanted):
        reason = broadcast_message(missing_features(part.workdir, epoch) if is_main_process() else "")
        if reason:
            prepared = prepared or _prepare(part, dataset)
            _mend_features(part, prepared, epoch, reason, keep)
    if outcome is not None:
        on_main_process(lambda: _write_summary(part, outcome, dataset.notes))


Keep = Callable[[PreparedRun, int, TrainState], None]


def _fit(
    part: Run, prepared: PreparedRun, wanted: Set[int], keep: Keep, callbacks: Sequence[Callback]
) -> tuple[Outcome, set[int]]:
    """Train to the end; the epochs whose features were kept are returned too."""
    prepared, kept = choose_lowerings(prepared, part.workdir), set[int]()

    def after_epoch(epoch: int, state: TrainState) -> Values:
        if epoch in wanted - kept:
            keep(prepared, epoch, state)
            kept.add(epoch)
        live = replace(part, live=Live(epoch, state))
        return call_callbacks(callbacks, epoch, live) if epoch and callbacks else {}

    return fit(prepared, part.workdir, after_epoch), kept


def _mend_features(part: Run, prepared: PreparedRun, epoch: int, reason: str, keep: Keep) -> None:
    """Features that an earlier process kept are made again from their checkpoint where they are no longer whole."""
    try:
        check_can_extract_again(part)
        keep(prepared, epoch, state_of(part, prepared, epoch))
        line = f"features of epoch {epoch} were made again from its checkpoint ({reason})"
    except UserError as error:
        line = f"features of epoch {epoch} cannot be read ({reason}), nor be made again: {error}"
    on_main_process(lambda: print(f"ncjax: warning: {line}", file=sys.stderr))


def _write_summary(part: Run, outcome: Outcome, data: tuple[str, ...]) -> None:
    """Write results/training.json; what it says of imported weights stays."""
    path = part.workdir / TRAINING
    earlier = structure(TrainingSummary, read_json(path), str(path)) if path.exists() else None
    summary = TrainingSummary(
        compile_secs=round(outcome.compile_secs, 2),
        train_secs=round(outcome.train_secs, 2),
        failures=outcome.failures,
        data=data,
        arithmetic=arithmetic(part.config.optim.precision, jax.default_backend()),
    )
    if earlier is not None:
        summary = replace(summary, imported=earlier.imported, mean=earlier.mean, std=earlier.std)
    write_json(path, unstructure(summary))
