# SPDX-License-Identifier: Apache-2.0
"""`ncjax import`, `ncjax export` and `ncjax compare`: what meets PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ncjax.cli.analysis import print_report
from ncjax.cli.configs import naming_flags, parse_config, start, workdir_of
from ncjax.cli.parsing import command, parse
from ncjax.cli.tables import print_text
from ncjax.config import Config, TorchMode
from ncjax.errors import UserError
from ncjax.events import stage


def import_verb(arguments: Sequence[str]) -> None:
    """Makes a work directory from PyTorch checkpoints."""
    begun = start("import", arguments)

    def options(
        checkpoints: tuple[Path, ...] = (),
        config: Annotated[Config, tyro.conf.arg(name="")] = begun.config,
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
        return checkpoints, config, workdir_of(config.name, workdir), mean, std

    checkpoints, config, workdir, mean, std = parse_config(begun, options)
    if not checkpoints:
        raise UserError("ncjax import needs --checkpoints FILE ..., one file for each member of the config")
    with stage("start", "loads JAX and PyTorch"):
        from ncjax.torch_port.exchange import import_checkpoints
    with naming_flags(Config):
        import_checkpoints(config, checkpoints, workdir, command("import", arguments), mean=mean, std=std)
    print(f"features: {(workdir / 'features').absolute()}; next: ncjax evaluate {workdir}")


def export_verb(arguments: Sequence[str]) -> None:
    """Writes the weights of one member as a PyTorch state_dict."""

    def options(
        workdir: tyro.conf.Positional[Path], member: int = 0, output: Path | None = None
    ) -> tuple[Path, int, Path]:
        """Write the weights of one member as a PyTorch state_dict.

        Args:
            workdir: Work directory of a run [path].
            member: Number of the member [from 0].
            output: File to write; its suffix chooses the format [.pt, .pth or .safetensors; none: WORKDIR/member_N.pt].
        """
        return workdir, member, output or workdir / f"member_{member}.pt"

    workdir, member, output = parse("export", options, arguments)
    with stage("start", "loads JAX and PyTorch"):
        from ncjax.torch_port.exchange import export_member
    export_member(workdir, member, output)
    print(f"weights: {output.absolute()}")


def compare_verb(arguments: Sequence[str]) -> None:
    """Trains with ncjax and with PyTorch, and reports both."""
    begun = start("compare", arguments)

    def options(
        config: Annotated[Config, tyro.conf.arg(name="")] = begun.config,
        workdir: Path | None = None,
        budget_minutes: float = 10.0,
        torch_modes: tuple[TorchMode, ...] = (),
    ) -> tuple[Config, Path, float, tuple[TorchMode, ...]]:
        """Train every member with ncjax and with PyTorch, from the same weights on the same batches.

        Args:
            config: The experiment.
            workdir: Where everything is written [path; none: runs/NAME].
            budget_minutes: All of it: speed, both trainings, evaluation; epochs are lowered until they fit [minutes].
            torch_modes: Ways of compiling PyTorch's side that are tried [modes; none: all that the device has].
        """
        return config, workdir_of(config.name, workdir), budget_minutes, torch_modes

    config, workdir, minutes, modes = parse_config(begun, options)
    if not minutes > 0:
        raise UserError(f"budget-minutes is {minutes:g}, but must be above 0; change it with --budget-minutes")
    with stage("start", "loads JAX and PyTorch"):
        from ncjax.bench.compare import compare_with_torch
    with naming_flags(Config):
        line = command("compare", arguments)
        found = compare_with_torch(config, workdir, line, budget_minutes=minutes, modes=modes)
    print_report(workdir)
    if found.left_out:
        print_text("\n".join(f"note: {line}" for line in found.left_out))
