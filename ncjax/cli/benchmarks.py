# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench NAME`: each measures, writes one JSON file and prints its tables."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from ncjax.config import Config, check_config
from ncjax.errors import UserError
from ncjax.cli.parsing import base_config, command, parse

USAGE = """usage: ncjax bench NAME ...

  ncjax bench train CONFIG [overrides]      images/s of one member: ncjax beside every way of running PyTorch
  ncjax bench ensemble CONFIG [overrides]   images/s of all members at once, beside one run after the other
  ncjax bench input CONFIG [overrides]      images/s that streaming delivers, beside what the training step consumes
  ncjax bench kmeans WORKLOAD               seconds of k-means, beside scikit-learn, faiss and ott-jax
  ncjax bench collapse                      seconds of all measures of collapse, beside one product X^T X
  ncjax bench theory                        run-steps/s of the synthetic setting, beside PyTorch
  ncjax bench startup                       ncjax --help, and the demo when started first and later

Each has --help."""


def bench(arguments: list[str]) -> None:
    """Run the benchmark that the first argument names.

    Raises:
        UserError: there is none of this name, its arguments do not fit, or its result cannot be written.
    """
    benches = {
        "train": _train,
        "ensemble": _ensemble,
        "input": _input,
        "kmeans": _kmeans,
        "collapse": _collapse,
        "theory": _theory,
        "startup": _startup,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    if arguments[0] not in benches:
        raise UserError(f"unknown benchmark {arguments[0]!r}; known: {', '.join(benches)}")
    benches[arguments[0]](arguments[1:])


def _train(arguments: list[str]) -> None:
    config, rounds, output = _config_rounds_output("bench train", arguments)
    from ncjax.bench.speed import bench_train

    _finish(output, lambda: bench_train(config, command("bench train", arguments), rounds=rounds))


def _ensemble(arguments: list[str]) -> None:
    config, rounds, output = _config_rounds_output("bench ensemble", arguments)
    from ncjax.bench.speed import bench_ensemble

    _finish(output, lambda: bench_ensemble(config, command("bench ensemble", arguments), rounds=rounds))


def _input(arguments: list[str]) -> None:
    config, rounds, output = _config_rounds_output("bench input", arguments)
    from ncjax.bench.input import bench_input

    _finish(output, lambda: bench_input(config, command("bench input", arguments), rounds=rounds))


def _kmeans(arguments: list[str]) -> None:
    from ncjax.bench.kmeans import Workload, bench_kmeans

    def options(
        workload: Annotated[Workload, tyro.conf.Positional],
        data: Path | None = None,
        rounds: int = 5,
        output: Path | None = None,
    ) -> tuple[Workload, Path | None, int, Path]:
        """Measure the seconds of k-means with ten restarts; those compared take turns.

        Args:
            workload: The points (ncjax/bench/kmeans.py describes them).
            data: Of the workload cifar10: npz file with train [n d] and train_y [n] [path].
            rounds: How often each is measured [rounds].
            output: File for the result [path; none: runs/bench/kmeans_WORKLOAD.json].
        """
        return workload, data, rounds, output or Path("runs/bench") / f"kmeans_{workload}.json"

    workload, data, rounds, output = parse("bench kmeans", options, arguments)
    _check_rounds(rounds)
    _finish(output, lambda: bench_kmeans(workload, data, command("bench kmeans", arguments), rounds=rounds))


def _collapse(arguments: list[str]) -> None:
    def options(rounds: int = 5, output: Path = Path("runs/bench/collapse.json")) -> tuple[int, Path]:
        """Time the full table of collapse of 50,000 x 512 features at both levels, and one product X^T X.

        Args:
            rounds: How often each is measured [rounds].
            output: File for the result [path].
        """
        return rounds, output

    rounds, output = parse("bench collapse", options, arguments)
    _check_rounds(rounds)
    from ncjax.bench.collapse import bench_collapse

    _finish(output, lambda: bench_collapse(command("bench collapse", arguments), rounds=rounds))


def _startup(arguments: list[str]) -> None:
    def options(rounds: int = 5, output: Path = Path("runs/bench/startup.json")) -> tuple[int, Path]:
        """Time `ncjax --help` and the demo, with an empty cache folder and with a filled one.

        Args:
            rounds: How often all of it is measured [rounds].
            output: File for the result [path].
        """
        return rounds, output

    rounds, output = parse("bench startup", options, arguments)
    _check_rounds(rounds)
    from ncjax.bench.startup import bench_startup

    _finish(output, lambda: bench_startup(command("bench startup", arguments), rounds=rounds))


def _theory(arguments: list[str]) -> None:
    def options(
        seeds: int = 256,
        steps: int = 1000,
        torch_steps: int = 10,
        rounds: int = 5,
        output: Path = Path("runs/bench/theory.json"),
    ) -> tuple[int, int, int, int, Path]:
        """Time the descent of many shallow networks at once, and a large product of matrices.

        Args:
            seeds: Networks [runs].
            steps: Of each with ncjax, at a call [steps].
            torch_steps: Of each with PyTorch, at a call [steps].
            rounds: How often each is measured [rounds].
            output: File for the result [path].
        """
        return seeds, steps, torch_steps, rounds, output

    seeds, steps, torch_steps, rounds, output = parse("bench theory", options, arguments)
    _check_rounds(rounds)
    if min(seeds, steps, torch_steps) < 1:
        raise UserError("seeds, steps and torch-steps must be 1 or more")
    from ncjax.bench.theory import bench_theory

    line = command("bench theory", arguments)
    counts = {"seeds": seeds, "steps": steps, "torch_steps": torch_steps}
    _finish(output, lambda: bench_theory(line, **counts, rounds=rounds))


def _config_rounds_output(verb: str, arguments: list[str]) -> tuple[Config, int, Path]:
    name, base, rest = base_config(verb, arguments)

    def options(
        config: Annotated[Config, tyro.conf.arg(name="")] = base, rounds: int = 5, output: Path | None = None
    ) -> tuple[Config, int, Path]:
        """Measure images per second; those compared take turns.

        Args:
            config: The experiment.
            rounds: How often each is measured, for a second or more [rounds].
            output: File for the result [path; none: runs/bench/BENCHMARK_NAME.json].
        """
        return config, rounds, output or Path("runs/bench") / f"{verb.split()[1]}_{config.name}.json"

    config, rounds, output = parse(name, options, rest)
    check_config(config)
    _check_rounds(rounds)
    return config, rounds, output


def _check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise UserError(f"rounds is {rounds}, but must be 1 or more")


def _finish(output: Path, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure, write, print; where the file cannot be written, that is said before all the work."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}; choose another --output") from error
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"cannot write {output}; choose another --output")
    result = measure()
    from ncjax.bench.result import tables
    from ncjax.storage.workdir import write_json

    write_json(output, result)
    print(f"{tables(result)}\n\nresult: {output.absolute()}")
