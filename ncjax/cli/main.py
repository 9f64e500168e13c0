# SPDX-License-Identifier: Apache-2.0
"""The verbs of the command line: each parses, calls one function, and prints where its result is."""

import errno
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from ncjax.config import Config, check_config
from ncjax.errors import Stopped, UserError
from ncjax.cli.parsing import base_config, base_config_of, command, parse
from ncjax.storage.caches import keep_compiled_programs

USAGE = """usage: ncjax VERB ...

  ncjax demo                         the whole pipeline on scikit-learn's digits: a report in about a minute
  ncjax run CONFIG [overrides]       train, evaluate and report, for example configs/coarse_cifar10_cpu.py
  ncjax train CONFIG [overrides]     train (or resume) and keep features; --help lists every field with its unit
  ncjax features WORKDIR             export the kept features as npz
  ncjax evaluate WORKDIR             k-means, probes and collapse metrics of the kept features
  ncjax evaluate FILE --labels ...   the same of features from anywhere: npz, npy, safetensors, .pt
  ncjax report WORKDIR               write report.html from the results and print the main tables

  ncjax compare CONFIG [overrides]   the same training in PyTorch beside ours: speed, memory, accuracies, CLP
  ncjax import CONFIG --checkpoints FILE ...   PyTorch checkpoints as a run, ready for ncjax evaluate
  ncjax export WORKDIR               a member's weights as a PyTorch state_dict (.pt or .safetensors)

  ncjax theory CONFIG [overrides]    the synthetic setting: a sweep of Gaussian mixtures and shallow networks

  ncjax bench train CONFIG           images/s of one member, ncjax beside PyTorch
  ncjax bench ensemble CONFIG        images/s of all members at once, beside one run after the other
  ncjax bench input CONFIG           images/s that streaming delivers, beside what the training step consumes
  ncjax bench collapse               seconds of all measures of collapse, beside one product of matrices
  ncjax bench theory                 runs/s of the synthetic setting, beside PyTorch
  ncjax bench startup                time to the first epoch of the demo, when started first and later

Overrides name a field of the config: --optim.lr 0.01 --seeds 8 --labels mod:5 fine. Each verb has --help."""

Verb = Callable[[list[str]], None]
STOPPED = 75  # EX_TEMPFAIL
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
AGAIN = "the same command goes on from the last checkpoint"


def main() -> None:
    """Run the verb on the command line.

    Exit codes: 2 with one line on bad input, 130 when interrupted, 75 when a signal stopped a training that the same
    command goes on with.
    """
    verbs: dict[str, Verb] = {
        "demo": _demo,
        "run": _run,
        "train": _train,
        "features": _features,
        "evaluate": _evaluate,
        "report": _report,
        "compare": _compare,
        "import": _import,
        "export": _export,
        "theory": _theory,
        "bench": _bench,
    }
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    keep_compiled_programs()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _exit_code(verbs, arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    if code:
        _leave(code)
        raise SystemExit(code)


def _terminated(number: int, frame: object) -> None:
    raise Stopped("stopped by SIGTERM")


def _exit_code(verbs: dict[str, Verb], arguments: list[str]) -> int:
    try:
        if arguments[0] not in verbs:
            raise UserError(f"unknown verb {arguments[0]!r}; known: {', '.join(verbs)}")
        verbs[arguments[0]](arguments[1:])
    except UserError as error:
        print(f"ncjax: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ncjax: interrupted; {AGAIN}", file=sys.stderr)
        return 130
    except Stopped as stop:
        print(f"ncjax: {stop}; the same command goes on from there", file=sys.stderr)
        return STOPPED
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"ncjax: error: cannot write {error.filename or 'a file'}: {error.strerror}; {AGAIN}", file=sys.stderr)
        return 2
    except Exception as error:
        if not _is_of_several():
            raise
        return _failed_among_several(error)
    return 0


def _is_of_several() -> bool:
    if "jax" not in sys.modules:
        return False
    from ncjax.distributed.processes import is_distributed

    return is_distributed()


def _failed_among_several(error: Exception) -> int:
    """The others are left at once, for they wait in vain; one that another has left can only start again."""
    from ncjax.distributed.processes import lost_peer

    if not lost_peer(error):
        traceback.print_exception(error)
        return 1
    print(f"ncjax: another process of this run ended or cannot be reached; {AGAIN}", file=sys.stderr)
    return STOPPED


def _leave(code: int) -> None:
    """One process of several ends at once when it fails: the others would wait for it at their end."""
    if "jax" in sys.modules:
        from ncjax.distributed.processes import leave

        leave(code)


def _join() -> None:
    """Join the other processes of this run, where the environment names them; for verbs that use devices."""
    from ncjax.distributed.processes import initialise

    initialise()


def _demo(arguments: list[str]) -> None:
    from ncjax.configs.digits_demo import get_config

    config, workdir = _parse_config("demo", get_config(), arguments)
    _run_all(config, workdir, "ncjax demo")


def _run(arguments: list[str]) -> None:
    config, workdir = _config_and_workdir("run", arguments)
    _run_all(config, workdir, command("run", arguments))


def _run_all(config: Config, workdir: Path, command: str) -> None:
    _join()
    from ncjax.pipeline import evaluate, train
    from ncjax.distributed.processes import on_main_process

    train(config, workdir, command)
    evaluate(workdir)
    on_main_process(lambda: _write_report(workdir))


def _train(arguments: list[str]) -> None:
    config, workdir = _config_and_workdir("train", arguments)
    _join()
    from ncjax.pipeline import train
    from ncjax.distributed.processes import on_main_process

    train(config, workdir, command("train", arguments))
    on_main_process(lambda: print(f"features: {(workdir / 'features').absolute()}"))


def _features(arguments: list[str]) -> None:
    def options(workdir: tyro.conf.Positional[Path], epochs: tuple[int, ...] = ()) -> tuple[Path, tuple[int, ...]]:
        """Export kept features as npz.

        Args:
            workdir: Work directory of a run [path].
            epochs: Which of the kept epochs [epochs; none named: all].
        """
        return workdir, epochs

    workdir, epochs = parse("features", options, arguments)
    from ncjax.features.extraction import export_npz, saved_epochs

    wanted = epochs or saved_epochs(workdir)
    if not wanted:
        raise UserError(f"{workdir} holds no features; run: ncjax train CONFIG --workdir {workdir}")
    for epoch in wanted:
        print(f"features: {export_npz(workdir, epoch).absolute()}")


def _evaluate(arguments: list[str]) -> None:
    from ncjax.cli.evaluating import evaluate_verb

    evaluate_verb(arguments, _join)


def _report(arguments: list[str]) -> None:
    def options(workdir: tyro.conf.Positional[Path]) -> Path:
        """Write report.html from the results of a run and print its main tables.

        Args:
            workdir: Work directory of the run [path].
        """
        return workdir

    _write_report(parse("report", options, arguments))


def _write_report(workdir: Path) -> None:
    from ncjax.report import summary, write_report

    report = write_report(workdir)
    print(f"\n{summary(workdir)}\n\nreport: {report.absolute()}")


def _compare(arguments: list[str]) -> None:
    name, base, rest = base_config("compare", arguments)

    def options(
        config: Annotated[Config, tyro.conf.arg(name="")] = base,
        workdir: Path | None = None,
        budget_minutes: float = 10.0,
    ) -> tuple[Config, Path, float]:
        """Train every member with ncjax and with PyTorch, from the same weights on the same batches.

        Args:
            config: The experiment.
            workdir: Where everything is written [path; none: runs/NAME].
            budget_minutes: Both trainings together; the number of epochs is lowered until they fit [minutes].
        """
        return config, workdir or Path("runs") / config.name, budget_minutes

    config, workdir, minutes = parse(name, options, rest)
    check_config(config)
    if not minutes > 0:
        raise UserError(f"budget-minutes is {minutes:g}, but must be above 0")
    from ncjax.bench.compare import compare

    compare(config, workdir, command("compare", arguments), budget_minutes=minutes)
    _write_report(workdir)


def _import(arguments: list[str]) -> None:
    name, base, rest = base_config("import", arguments)

    def options(
        checkpoints: tuple[Path, ...],
        config: Annotated[Config, tyro.conf.arg(name="")] = base,
        workdir: Path | None = None,
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
    ) -> tuple[tuple[Path, ...], Config, Path, tuple[float, ...], tuple[float, ...]]:
        """Make a work directory, as after training, from PyTorch checkpoints.

        Args:
            checkpoints: One file for each member of the config [paths of .pt, .pth or .safetensors].
            config: The network and the data that they belong to.
            workdir: Where everything is written [path; none: runs/NAME].
            mean: Channel means that images were normalised with [full scale = 1; none: those of the data].
            std: The same for standard deviations [full scale = 1; none: those of the data].
        """
        return checkpoints, config, workdir or Path("runs") / config.name, mean, std

    checkpoints, config, workdir, mean, std = parse(name, options, rest)
    check_config(config)
    from ncjax.torch_port.exchange import import_checkpoints

    import_checkpoints(config, checkpoints, workdir, command("import", arguments), mean=mean, std=std)
    print(f"features: {(workdir / 'features').absolute()}; next: ncjax evaluate {workdir}")


def _export(arguments: list[str]) -> None:
    def options(
        workdir: tyro.conf.Positional[Path], member: int = 0, output: Path | None = None
    ) -> tuple[Path, int, Path]:
        """Write the weights of one member as a PyTorch state_dict.

        Args:
            workdir: Work directory of a run [path].
            member: Number of the member [from 0].
            output: File to write; its suffix chooses the format [.pt or .safetensors; none: WORKDIR/member_N.pt].
        """
        return workdir, member, output or workdir / f"member_{member}.pt"

    workdir, member, output = parse("export", options, arguments)
    from ncjax.torch_port.exchange import export_member

    export_member(workdir, member, output)
    print(f"weights: {output.absolute()}")


def _theory(arguments: list[str]) -> None:
    from ncjax.theory.config import TheoryConfig, check_theory

    name, base, rest = base_config_of(TheoryConfig, "theory", arguments, "configs/theory_frozen.py")

    def options(
        config: Annotated[TheoryConfig, tyro.conf.arg(name="")] = base, workdir: Path | None = None
    ) -> tuple[TheoryConfig, Path]:
        """Gaussian mixtures with several Gaussians to a label, and shallow networks: outer loops x settings x seeds.

        Args:
            config: The sweep.
            workdir: Where everything is written [path; none: runs/NAME].
        """
        return config, workdir or Path("runs") / config.name

    config, workdir = parse(name, options, rest)
    check_theory(config)
    from ncjax.theory.experiment import run_theory
    from ncjax.theory.sweep import use_every_core

    use_every_core()
    print(f"results: {run_theory(config, workdir, command('theory', arguments)).absolute()}")
    _write_report(workdir)


def _bench(arguments: list[str]) -> None:
    from ncjax.cli.benchmarks import bench

    bench(arguments)


def _config_and_workdir(verb: str, arguments: list[str]) -> tuple[Config, Path]:
    return _parse_config(*base_config(verb, arguments))


def _parse_config(verb: str, base: Config, arguments: list[str]) -> tuple[Config, Path]:
    def options(
        config: Annotated[Config, tyro.conf.arg(name="")] = base, workdir: Path | None = None
    ) -> tuple[Config, Path]:
        """An ensemble of members: labels x learning rates x weight decays x seeds.

        Args:
            config: The experiment.
            workdir: Where everything is written [path; none: runs/NAME].
        """
        return config, workdir or Path("runs") / config.name

    config, workdir = parse(verb, options, arguments)
    check_config(config)
    return config, workdir
