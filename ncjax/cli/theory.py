# SPDX-License-Identifier: Apache-2.0
"""`ncjax theory`: the synthetic setting."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ncjax.cli.analysis import print_report
from ncjax.cli.configs import naming_flags, start_of, workdir_of
from ncjax.cli.parsing import command, parse
from ncjax.cli.progress import duration
from ncjax.events import stage


def theory_verb(arguments: Sequence[str]) -> None:
    """Runs a sweep of Gaussian mixtures and shallow networks, and reports it."""
    from ncjax.theory.config import TheoryConfig

    begun = start_of(TheoryConfig, "theory", arguments, "theory_frozen")

    def options(
        config: Annotated[TheoryConfig, tyro.conf.arg(name="")] = begun.config, workdir: Path | None = None
    ) -> tuple[TheoryConfig, Path]:
        """Gaussian mixtures with several Gaussians to a label, and shallow networks: outer loops x settings x seeds.

        Args:
            config: The sweep.
            workdir: Where everything is written [path; none: runs/NAME].
        """
        return config, workdir_of(config.name, workdir)

    with naming_flags(TheoryConfig):
        config, workdir = parse(begun.verb, options, begun.rest)
        with stage("start", "loads JAX"):
            from ncjax.theory.experiment import read_summary, run_theory
            from ncjax.theory.sweep import use_every_core
        use_every_core()
        results = run_theory(config, workdir, command("theory", arguments))
    found = read_summary(workdir)
    print(
        f"{found.runs} runs, {found.diverged} diverged, in {duration(found.wall_secs)}\nresults: {results.absolute()}"
    )
    print_report(workdir)
