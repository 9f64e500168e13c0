# SPDX-License-Identifier: Apache-2.0
"""Everything worth measuring on an accelerator in a few minutes: values first, then speed beside what is installed."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncjax.bench.correctness import bench_correctness
from ncjax.bench.evaluation import bench_evaluation
from ncjax.bench.kmeans import OURS, Workload, bench_kmeans
from ncjax.bench.limited import Answer, run_limited
from ncjax.bench.lloyd import LARGE, Lloyd, bench_lloyd
from ncjax.bench.result import BenchComparison, BenchResult, BenchRow
from ncjax.bench.speed import bench_ensemble, bench_train
from ncjax.config import Config, DataConfig, ModelConfig, OptimConfig
from ncjax.errors import UserError

MINUTES = 8.0  # that the limits of the stages add up for
LEAST_SECS = 5.0  # below which no stage is started
ROUNDS = 3
EXAMPLES, TESTED, FEATURES, CLASSES = 2_000, 500, 16, 10  # of the toy size


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is measured: on which pictures and features, and at which size.

    Attributes:
        toy: a size that a CPU takes seconds for.
        pictures: where the training pictures come from.
        features: npz file of an evaluation; None: made features of the usual size.
        rounds: how often each is measured.
    """

    toy: bool
    pictures: DataConfig
    features: Path | None
    rounds: int


class Stage(NamedTuple):
    """One part of the benchmark, in a process of its own."""

    run: Callable[[Scope, float], BenchResult]  # with the `until` of `interleave`
    secs: float  # at most, of MINUTES
    what: str


def _correctness(scope: Scope, until: float) -> BenchResult:
    return bench_correctness("", toy=scope.toy)


def _train(scope: Scope, until: float, batch: int) -> BenchResult:
    return bench_train(_training(scope, batch), "", rounds=scope.rounds, until=until)


def _evaluate(scope: Scope, until: float) -> BenchResult:
    return bench_evaluation(scope.features, 2 if scope.toy else 20, "", rounds=1)


def _ensemble(scope: Scope, until: float) -> BenchResult:
    config = _training(scope, 128)
    many = dataclasses.replace(
        config, seeds=2 if scope.toy else 16, model=dataclasses.replace(config.model, width=4 if scope.toy else 16)
    )
    return bench_ensemble(many, "", rounds=scope.rounds, until=until)


def _kmeans(scope: Scope, until: float) -> BenchResult:
    beside = "flash-kmeans" if find_spec("flash_kmeans") and not scope.toy else "scikit-learn Lloyd"
    workload: Workload = "cifar10" if scope.toy else "features"
    return bench_kmeans(workload, scope.features, "", rounds=scope.rounds, only=(OURS, beside))


def _lloyd(scope: Scope, until: float) -> BenchResult:
    return bench_lloyd(Lloyd(5_000, 16, 100, 3) if scope.toy else LARGE, "", rounds=scope.rounds)


STAGES = {  # the most important first
    "correctness": Stage(_correctness, 50, "values beside float64 on the host"),
    "train_512": Stage(partial(_train, batch=512), 150, "images/s of one ResNet-18, batch 512, bfloat16"),
    "train_128": Stage(partial(_train, batch=128), 80, "the same, batch 128"),
    "evaluate": Stage(_evaluate, 50, "seconds of a whole evaluation"),
    "ensemble": Stage(_ensemble, 70, "images/s of 16 ResNet-18 of width 16"),
    "kmeans": Stage(_kmeans, 45, "seconds of k-means, 50,000 x 512, k = 10, ten restarts"),
    "lloyd": Stage(_lloyd, 35, "seconds of 25 steps of k-means, 1,000,000 x 128, k = 1000"),
}


def bench_accelerator(
    command: str, *, minutes: float, stages: Sequence[str] = (), toy: bool = False, data: Path | None = None
) -> BenchResult:
    """Runs the stages one after the other, each with a limit of its own; what has ended when time is over counts.

    Args:
        command: kept with the results.
        minutes: for all of it.
        stages: names of `STAGES`; empty: all.
        toy: a size that a CPU takes seconds for.
        data: folder of CIFAR-10 in one of its forms; None: random pictures of its shape, which train as fast.

    Returns:
        Rows, comparisons and notes of all stages, whose names are before theirs.

    Raises:
        UserError: no stage of this name, or none has given a result.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown:
        raise UserError(f"unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}")
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        scope = make_scope(Path(folder), toy=toy, data=data)
        answers = {name: _run(name, scope, minutes, end) for name in stages or STAGES}
    return joined(command, answers)


def make_scope(folder: Path, *, toy: bool, data: Path | None) -> Scope:
    """Pictures and features that are not given are made in a folder."""
    features = _make_features(folder / "features.npz") if toy else None
    if data is not None:
        pictures = DataConfig(source="cifar10", path=str(data))
    else:
        pictures = DataConfig(source="npz", path=str(_make_pictures(folder / "pictures.npz", toy=toy)))
    pictures = dataclasses.replace(pictures, crop_padding=1 if toy else 4, flip=True, cache_dir=str(folder / "cache"))
    return Scope(toy=toy, pictures=pictures, features=features, rounds=1 if toy else ROUNDS)


def _make_pictures(file: Path, *, toy: bool) -> Path:
    rng, size, (train, test) = np.random.default_rng(0), 8 if toy else 32, (600, 100) if toy else (50_000, 10_000)
    images = rng.integers(0, 256, (train + test, size, size, 3), np.uint8)
    labels = np.arange(train + test) % CLASSES
    np.savez(file, x_train=images[:train], y_train=labels[:train], x_test=images[train:], y_test=labels[train:])
    return file


def _make_features(file: Path) -> Path:
    from ncjax.bench.kmeans import make_features

    points, labels = make_features(EXAMPLES + TESTED, FEATURES, CLASSES, 0)
    (train, test), (train_y, test_y) = ((one[:EXAMPLES], one[EXAMPLES:]) for one in (points, labels))
    np.savez(file, train=train, test=test, train_y=train_y, test_y=test_y)
    return file


def _training(scope: Scope, batch: int) -> Config:
    model = ModelConfig(name="cnn", width=8) if scope.toy else ModelConfig(name="resnet18", width=64)
    optim = OptimConfig(batch=min(batch, 64) if scope.toy else batch, epochs=200, precision="bfloat16")
    return Config(name="accelerator", data=scope.pictures, model=model, optim=optim, chunk_steps=4 if scope.toy else 97)


def _run(name: str, scope: Scope, minutes: float, end: float) -> Answer:
    limit = min(STAGES[name].secs * minutes / MINUTES, end - time.monotonic())
    if limit < LEAST_SECS:
        return Answer(None, "no time was left")
    until = time.monotonic() + 0.85 * limit  # a round may take longer
    variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false")}
    print(f"{name}: {STAGES[name].what}, at most {limit:.0f} s", flush=True)
    return run_limited(partial(STAGES[name].run, scope, until), limit, variables)


def joined(command: str, answers: dict[str, Answer]) -> BenchResult:
    """One result of all stages; notes say why others have none.

    Raises:
        UserError: there is no result at all.
    """
    found: dict[str, BenchResult] = {name: answer.value for name, answer in answers.items() if answer.value is not None}
    if not found:
        raise UserError("nothing was measured: " + "; ".join(f"{name}: {one.error}" for name, one in answers.items()))
    rows, comparisons, notes = list[BenchRow](), list[BenchComparison](), list[str]()
    for name, one in found.items():
        rows += [dataclasses.replace(row, name=f"{name}: {row.name}") for row in one.rows]
        comparisons += [
            dataclasses.replace(line, ours=f"{name}: {line.ours}", theirs=f"{name}: {line.theirs}")
            for line in one.comparisons
        ]
        notes += [f"{name}: {note}" for note in one.notes]
    notes += [f"{name} has no result: {answer.error}" for name, answer in answers.items() if answer.value is None]
    first = next(iter(found.values()))
    config = next((one.config for one in found.values() if one.config), {})
    return dataclasses.replace(
        first, command=command, rows=tuple(rows), comparisons=tuple(comparisons), notes=tuple(notes), config=config
    )
