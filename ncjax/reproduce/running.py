# SPDX-License-Identifier: Apache-2.0
"""Runs pieces of experiments, one after the other, within a limit of time."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ncjax.bench.compare import compare_with_torch
from ncjax.config import Config, to_dict
from ncjax.distributed.environment import environment
from ncjax.distributed.processes import broadcast_message, is_main_process, on_main_process
from ncjax.errors import Stopped
from ncjax.features.feature_set import FeatureSet, SplitFeatures
from ncjax.features.run import Run
from ncjax.pipeline import evaluate_run, train
from ncjax.report.read import read_comparison
from ncjax.reproduce.experiment import Experiment, Scale
from ncjax.reproduce.finished import (
    COMPARISON,
    EVALUATION,
    Finished,
    Parts,
    Task,
    collect,
    members_of,
    of_member,
    recovered_labels,
    write_finished,
)
from ncjax.reproduce.plan import Cost, choose, list_tasks, unfinished
from ncjax.results import Evaluation
from ncjax.storage.metrics import METRICS, read_records

FASHION = "fashion-mnist"  # its folder below that of all data
LARGEST = 6e4  # of float16, with a margin
COMPARISON_SHARE = 1.5  # of the estimate of a comparison, for its budget: so the epochs are not lowered


def run_experiments(
    chosen: Sequence[Experiment],
    scale: Scale,
    root: Path,
    command: str,
    *,
    data: Path | None = None,
    minutes: float | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Trains and evaluates what is not finished, the most valuable first, and writes the results of what is.

    Args:
        chosen: experiments, in order of value.
        scale: the size.
        root: folder of all experiments: work/, members/ and results/.
        command: kept with the results.
        data: folder that holds cifar-10-batches-py (or -bin) and fashion-mnist; None: as the configs say.
        minutes: after which what is under way is told to stop, by SIGTERM to this process; None: no limit.
        say: gets lines for a person, on the main process.

    Raises:
        UserError: an experiment is not defined at the scale, its data cannot be read, or a finished member is damaged.
        Stopped: something is left; the same command goes on.
    """
    tasks, started = list_tasks(chosen, scale, root), time.monotonic()
    limit = float("inf") if minutes is None else minutes
    device, whole = environment().device, 0.0

    def tell(line: str) -> None:
        on_main_process(lambda: say(line))

    on_main_process(lambda: [collect(task) for task in {task.results: task for task in tasks}.values()])
    with _stopped_after(minutes):
        while True:
            costs = unfinished(tasks, device)
            left = limit - (time.monotonic() - started) / 60
            whole = whole or left  # what a call has for its first piece: one that takes longer fits no call
            found = _agreed(tasks, choose(costs, left, whole))
            if found is None:
                break
            tell(_line(found, tasks, costs, left))
            run_task(found.task, command, data)
            on_main_process(lambda found=found: collect(found.task))  # type: ignore[misc]
            tell(f"results: {found.task.results}")
    if costs:
        names = ", ".join(cost.task.piece.name for cost in costs)
        raise Stopped(f"{len(costs)} of {len(tasks)} pieces are left for another call: {names}")


def _agreed(tasks: Sequence[Task], found: Cost | None) -> Cost | None:
    """What the main process chose; the clocks of several differ."""
    own = f"{tasks.index(found.task)} {found.minutes or 0}" if found and is_main_process() else ""
    agreed = broadcast_message(own)
    if not agreed:
        return None
    place, minutes = agreed.split()
    return Cost(tasks[int(place)], float(minutes) or None)


def _line(found: Cost, tasks: Sequence[Task], costs: Sequence[Cost], left: float) -> str:
    """What is begun, how much is done, and what that takes of the time that is left."""
    task, parts = found.task, [f"{len(tasks) - len(costs)} of {len(tasks)} done"]
    if found.minutes is not None:
        parts.append(f"about {found.minutes:.2g} min")
    if left < float("inf"):
        parts.append(f"{left:.2g} min are left")
        if found.minutes is None or found.minutes > left:
            parts.append("cut off then, and gone on with in the next call")
    return f"{task.experiment}, {task.scale}: {task.piece.name} ({', '.join(parts)})"


@contextmanager
def _stopped_after(minutes: float | None) -> Iterator[None]:
    """SIGTERM to this process after so many minutes: training writes a checkpoint, all else ends at once."""
    if minutes is None:
        yield
        return
    timer = threading.Timer(60 * minutes, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def run_task(task: Task, command: str, data: Path | None = None) -> None:
    """Trains, evaluates and finishes the members of one piece; goes on where its work directory is.

    Raises:
        UserError: as `ncjax.train` and `ncjax.pipeline.evaluate_run`.
        Stopped: a signal asked for it.
    """
    config = with_data(task.piece.config, data)
    if task.piece.compare:
        _compare(task, config, command)
        return
    run = train(config, workdir=task.workdir, command=command)
    found, features = evaluate_run(run, controls=task.piece.controls), run.features()
    on_main_process(lambda: _finish(task, run, found, features))


def with_data(config: Config, data: Path | None) -> Config:
    """A config that reads its data below a folder; None: where it says itself."""
    of_fashion = config.data.source in ("idx", "fashion_mnist")
    if data is None or not (of_fashion or config.data.source == "cifar10"):
        return config
    path = data / FASHION if of_fashion and (data / FASHION).is_dir() else data
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(path)))


def _finish(task: Task, run: Run, found: Evaluation, features: FeatureSet) -> None:
    """Writes a folder for each member, and one for the controls."""
    records = read_records(run.workdir / METRICS)
    secs = sum(one or 0.0 for one in found.provenance.wall_secs.values())
    for name, rows in members_of(found).items():
        about = Finished(
            member=name,
            piece=task.piece.name,
            members=task.piece.members,
            wall_secs=round(secs, 1),
            device=found.provenance.device,
            config=to_dict(run.config),
        )
        own = dataclasses.replace(found, rows=rows, clusters={})
        if name:
            arrays = _float16(features.select((features.names.index(name),)))
            parts = Parts(own, of_member(records, name), recovered_labels(found, rows[-1]), arrays)
        else:
            parts = Parts(own)
        write_finished(task, about, parts)


def _float16(features: FeatureSet) -> dict[str, np.ndarray]:
    """One member as `ncjax evaluate FILE` reads it: features in float16 where they fit, true labels, the classifier."""
    assert features.test is not None
    arrays: dict[str, np.ndarray] = {"class_names": np.array(features.class_names)}
    for name, split in (("train", features.train), ("test", features.test)):
        rows = np.asarray(split.layers["features"][0][:])
        fits = np.abs(rows).max(initial=0) < LARGEST
        arrays |= {f"{name}_features": rows.astype(np.float16) if fits else rows, f"{name}_labels": _labels(split)}
    if features.classifier is not None:
        weights, bias = features.classifier
        arrays |= {"weights": weights[0].T, "bias": bias[0]}
    return arrays


def _labels(split: SplitFeatures) -> np.ndarray:
    return split.labels.astype(np.int16)


def _compare(task: Task, config: Config, command: str) -> None:
    """Trains with ncjax and with PyTorch; all of it is finished as one."""
    started = time.perf_counter()
    budget = COMPARISON_SHARE * (task.piece.minutes or 600.0)
    found = compare_with_torch(config, task.workdir, command, budget_minutes=budget)
    if found.left_out:
        raise Stopped(found.left_out[0])
    path = task.workdir / "results" / EVALUATION
    about = Finished(
        member=task.piece.name,
        piece=task.piece.name,
        members=1,
        wall_secs=round(time.perf_counter() - started, 1),
        device=found.provenance.device,
        config=to_dict(config),
    )
    comparison = read_comparison(task.workdir / "results" / COMPARISON, "compare again")
    evaluation = Evaluation.from_json(path.read_bytes(), str(path))
    write_finished(task, about, Parts(evaluation, read_records(task.workdir / METRICS), comparison=comparison))
