# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench NAME`: each measures, writes one JSON file and prints its tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import tyro

from ncjax.cli.configs import naming_flags, parse_config, start
from ncjax.cli.parsing import command, parse
from ncjax.cli.verbs import BENCHMARKS, dispatch
from ncjax.config import Config, TorchMode
from ncjax.errors import UserError

if TYPE_CHECKING:
    from ncjax.bench.result import BenchResult

FOLDER = Path("runs/bench")


def bench_verb(arguments: Sequence[str]) -> None:
    """Runs the benchmark that the first argument names.

    Raises:
        UserError: there is none of this name, its arguments do not fit, or its result cannot be written.
    """
    dispatch("ncjax bench", "benchmark", BENCHMARKS, arguments)


def bench_train_verb(arguments: Sequence[str]) -> None:
    """Measures one member."""
    config, rounds, modes, output = _speed_options("train", arguments)
    from ncjax.bench.speed import bench_train

    _finish(output, lambda: bench_train(config, command("bench train", arguments), rounds=rounds, modes=modes))


def bench_ensemble_verb(arguments: Sequence[str]) -> None:
    """Measures all members at once."""
    config, rounds, modes, output = _speed_options("ensemble", arguments)
    from ncjax.bench.speed import bench_ensemble

    _finish(output, lambda: bench_ensemble(config, command("bench ensemble", arguments), rounds=rounds, modes=modes))


def bench_input_verb(arguments: Sequence[str]) -> None:
    """Measures streaming."""
    begun = start("bench input", arguments)

    def options(
        config: Annotated[Config, tyro.conf.arg(name="")] = begun.config, rounds: int = 5, output: Path | None = None
    ) -> tuple[Config, int, Path]:
        """Measure images per second; the implementations are called alternately.

        Args:
            config: The experiment.
            rounds: How often each is measured, for a second or more [rounds].
            output: File for the result [path; none: runs/bench/BENCHMARK_NAME.json].
        """
        return config, rounds, output or FOLDER / f"input_{config.name}.json"

    config, rounds, output = parse_config(begun, options)
    _check_rounds(rounds)
    from ncjax.bench.input import bench_input

    _finish(output, lambda: bench_input(config, command("bench input", arguments), rounds=rounds))


def bench_kmeans_verb(arguments: Sequence[str]) -> None:
    """Measures k-means."""
    from ncjax.bench.kmeans import Workload, bench_kmeans

    def options(
        workload: tyro.conf.Positional[str], data: Path | None = None, rounds: int = 5, output: Path | None = None
    ) -> tuple[str, Path | None, int, Path]:
        """Measure the seconds of k-means with ten restarts; the implementations are called alternately.

        Args:
            workload: The points: features, super-classes, cifar10, blobs or noise; ncjax/bench/kmeans.py describes them
                [name].
            data: Of the workload cifar10: npz file with train [n d] and train_y [n] [path].
            rounds: How often each is measured [rounds].
            output: File for the result [path; none: runs/bench/kmeans_WORKLOAD.json].
        """
        return workload, data, rounds, output or FOLDER / f"kmeans_{workload}.json"

    name, data, rounds, output = parse("bench kmeans", options, arguments)
    found: Workload | None = next((known for known in get_args(Workload) if known == name), None)
    if found is None:
        raise UserError(f"unknown workload {name!r}; known: {', '.join(get_args(Workload))}")
    _check_rounds(rounds)
    _finish(output, lambda: bench_kmeans(found, data, command("bench kmeans", arguments), rounds=rounds))


def bench_probe_verb(arguments: Sequence[str]) -> None:
    """Measures linear probes."""

    def options(
        data: Path | None = None, labellings: int = 1, rounds: int = 5, output: Path | None = None
    ) -> tuple[Path | None, int, int, Path]:
        """Time logistic regressions of 50,000 x 512 features with ten classes, beside scikit-learn's.

        Args:
            data: Other features: npz file with train [n d] and train_y [n] [path].
            labellings: Regressions of the same features at once [labellings].
            rounds: How often each is measured [rounds].
            output: File for the result [path; none: runs/bench/probe_LABELLINGS.json].
        """
        return data, labellings, rounds, output or FOLDER / f"probe_{labellings}.json"

    data, labellings, rounds, output = parse("bench probe", options, arguments)
    _check_rounds(rounds)
    if labellings < 1:
        raise UserError(f"labellings is {labellings}, but must be 1 or more")
    from ncjax.bench.probe import bench_probe

    _finish(output, lambda: bench_probe(data, labellings, command("bench probe", arguments), rounds=rounds))


def bench_evaluate_verb(arguments: Sequence[str]) -> None:
    """Measures a whole evaluation."""

    def options(
        data: Path | None = None, bootstrap: int = 20, rounds: int = 5, output: Path = FOLDER / "evaluate.json"
    ) -> tuple[Path | None, int, int, Path]:
        """Time an evaluation of 50,000 + 10,000 x 512 features, beside scikit-learn's clusters and probes.

        Args:
            data: Other features: npz file with train [n d], train_y [n], test and test_y [path].
            bootstrap: Resamples of the measures of collapse [resamples].
            rounds: How often each is measured [rounds].
            output: File for the result [path].
        """
        return data, bootstrap, rounds, output

    data, bootstrap, rounds, output = parse("bench evaluate", options, arguments)
    _check_rounds(rounds)
    if bootstrap < 0 or bootstrap == 1:
        raise UserError(f"bootstrap is {bootstrap}, but must be 0 or at least 2")
    from ncjax.bench.evaluation import bench_evaluation

    _finish(output, lambda: bench_evaluation(data, bootstrap, command("bench evaluate", arguments), rounds=rounds))


def bench_collapse_verb(arguments: Sequence[str]) -> None:
    """Measures all collapse metrics."""

    def options(rounds: int = 5, output: Path = FOLDER / "collapse.json") -> tuple[int, Path]:
        """Time all collapse metrics of 50,000 x 512 features, and one product X^T X.

        Args:
            rounds: How often each is measured [rounds].
            output: File for the result [path].
        """
        return rounds, output

    rounds, output = parse("bench collapse", options, arguments)
    _check_rounds(rounds)
    from ncjax.bench.collapse import bench_collapse

    _finish(output, lambda: bench_collapse(command("bench collapse", arguments), rounds=rounds))


def bench_startup_verb(arguments: Sequence[str]) -> None:
    """Measures the start of the command line."""

    def options(rounds: int = 5, output: Path = FOLDER / "startup.json") -> tuple[int, Path]:
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


def bench_theory_verb(arguments: Sequence[str]) -> None:
    """Measures the synthetic setting."""

    def options(
        seeds: int = 256,
        steps: int = 1000,
        torch_steps: int = 10,
        rounds: int = 5,
        output: Path = FOLDER / "theory.json",
    ) -> tuple[int, int, int, int, Path]:
        """Time gradient descent of many shallow networks at once, and a large product of matrices.

        Args:
            seeds: Networks [runs].
            steps: Of each with ncjax, in one measurement [steps].
            torch_steps: Of each with PyTorch, in one measurement [steps].
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
    _finish(output, lambda: bench_theory(line, seeds=seeds, steps=steps, torch_steps=torch_steps, rounds=rounds))


def _speed_options(name: str, arguments: Sequence[str]) -> tuple[Config, int, tuple[TorchMode, ...], Path]:
    begun = start(f"bench {name}", arguments)

    def options(
        config: Annotated[Config, tyro.conf.arg(name="")] = begun.config,
        rounds: int = 5,
        torch_modes: tuple[TorchMode, ...] = (),
        output: Path | None = None,
    ) -> tuple[Config, int, tuple[TorchMode, ...], Path]:
        """Measure images per second; the implementations are called alternately.

        Args:
            config: The experiment.
            rounds: How often each is measured, for a second or more [rounds].
            torch_modes: Ways of compiling PyTorch's side [modes; none: all that the device has].
            output: File for the result [path; none: runs/bench/BENCHMARK_NAME.json].
        """
        return config, rounds, torch_modes, output or FOLDER / f"{name}_{config.name}.json"

    config, rounds, modes, output = parse_config(begun, options)
    _check_rounds(rounds)
    return config, rounds, modes, output


def _check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise UserError(f"rounds is {rounds}, but must be 1 or more; change it with --rounds")


def _finish(output: Path, measure: "Callable[[], BenchResult]") -> None:
    """Measures, writes, prints; a file that cannot be written is refused before all the work."""
    from ncjax.storage.atomic import can_write

    if not can_write(output):
        raise UserError(f"cannot write {output}; choose another --output")
    with naming_flags(Config):
        result = measure()
    from ncjax.bench.result import tables, write_result

    write_result(output, result)
    print(f"{tables(result)}\n\nresult: {output.absolute()}")
