# SPDX-License-Identifier: Apache-2.0
"""`ncjax demo`, `ncjax run` and `ncjax train`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ncjax.cli.analysis import print_report, run_evaluation
from ncjax.cli.configs import Start, config_and_workdir, find_config, naming_flags, start
from ncjax.cli.parsing import command
from ncjax.config import Config, load_config
from ncjax.results import TrainingSummary


def demo_verb(arguments: Sequence[str]) -> None:
    """Trains, evaluates and reports on scikit-learn's digits."""
    config = load_config(find_config("digits_demo"))
    _run(*config_and_workdir(Start("demo", config, arguments)), "ncjax demo")


def run_verb(arguments: Sequence[str]) -> None:
    """Trains, evaluates and reports."""
    _run(*config_and_workdir(start("run", arguments)), command("run", arguments))


def train_verb(arguments: Sequence[str]) -> None:
    """Trains, or goes on from the last checkpoint, and keeps features."""
    config, workdir = config_and_workdir(start("train", arguments))
    _train(config, workdir, command("train", arguments))
    from ncjax.distributed.processes import on_main_process

    on_main_process(lambda: print(f"features: {(workdir / 'features').absolute()}"))


def _run(config: Config, workdir: Path, line: str) -> None:
    run = _train(config, workdir, line)
    from ncjax.distributed.processes import on_main_process

    with naming_flags(Config):
        run_evaluation(run)
    on_main_process(lambda: print_report(workdir))


def _train(config: Config, workdir: Path, line: str) -> Any:
    from ncjax.distributed.processes import initialize, on_main_process

    initialize()
    from ncjax.pipeline import train

    with naming_flags(Config):
        run = train(config, workdir=workdir, command=line)
    on_main_process(lambda: _print_training(run.training))
    return run


def _print_training(training: TrainingSummary) -> None:
    for line in training.failures:
        print(f"warning: {line}")
    print(f"compiled in {training.compile_secs or 0:.1f} s, trained in {training.train_secs or 0:.1f} s")
