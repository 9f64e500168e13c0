# SPDX-License-Identifier: Apache-2.0
"""`ncjax run` and `ncjax train`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ncjax.cli.analysis import print_report, run_evaluation
from ncjax.cli.configs import config_and_workdir, naming_flags, start
from ncjax.cli.parsing import command
from ncjax.cli.progress import duration, load_jax
from ncjax.config import Config
from ncjax.results import TrainingSummary


def run_verb(arguments: Sequence[str]) -> None:
    """Trains, evaluates and reports."""
    config, workdir = config_and_workdir(start("run", arguments))
    run = train_config(config, workdir, command("run", arguments))
    from ncjax.distributed.processes import on_main_process

    with naming_flags(Config):
        run_evaluation(run)
    on_main_process(lambda: print_report(workdir))


def train_verb(arguments: Sequence[str]) -> None:
    """Trains, or goes on from the last checkpoint, and keeps features."""
    config, workdir = config_and_workdir(start("train", arguments))
    train_config(config, workdir, command("train", arguments))
    from ncjax.distributed.processes import on_main_process

    on_main_process(lambda: print(f"features: {(workdir / 'features').absolute()}"))


def train_config(config: Config, workdir: Path, line: str) -> Any:
    """Trains, and prints how long that took.

    Args:
        config: the experiment.
        workdir: where everything is written.
        line: the command, kept with the results.

    Returns:
        The run.
    """
    load_jax()
    from ncjax.distributed.processes import on_main_process
    from ncjax.pipeline import train

    with naming_flags(Config):
        run = train(config, workdir=workdir, command=line)
    on_main_process(lambda: _print_training(run.training))
    return run


def _print_training(training: TrainingSummary) -> None:
    for line in training.failures:
        print(f"warning: {line}")
    print(f"compiled in {duration(training.compile_secs or 0.0)}, trained in {duration(training.train_secs or 0.0)}")
