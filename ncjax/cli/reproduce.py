# SPDX-License-Identifier: Apache-2.0
"""`ncjax reproduce`: the experiments of the results page."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tyro

from ncjax.cli.parsing import command, parse
from ncjax.cli.tables import print_text
from ncjax.errors import UserError
from ncjax.reproduce.experiment import Scale


class _Reproduce(NamedTuple):
    """What `ncjax reproduce` is asked for."""

    names: tuple[str, ...]
    scale: Scale
    minutes: float | None
    data: Path | None
    workdir: Path
    page: Path | None


def _options(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    scale: Scale = "cores",
    minutes: float | None = None,
    data: Path | None = None,
    workdir: Path = Path("runs/reproduce"),
    page: Path | None = None,
) -> _Reproduce:
    """Run experiments of the results page, the most valuable first; without a name, list them with what they cost.

    Args:
        names: Of experiments [names; all: all of them; none: list them].
        scale: Size: two cores, one GPU, several devices, or a try that takes minutes and shows no result.
        minutes: Limit of this call: what does not fit waits for the next one [minutes; none: no limit].
        data: Folder with cifar-10-batches-py (or -bin) and fashion-mnist [path; none: data/ in this folder].
        workdir: Where everything is written; members/ in it is what travels to other machines [path].
        page: Template of a page, docs/results.md.j2: writes the page and its figures from docs/logs, and runs nothing
            [path].
    """
    return _Reproduce(names, scale, minutes, data, workdir, page)


def reproduce_verb(arguments: Sequence[str]) -> None:
    """Lists or runs experiments, or writes the page of their results.

    Raises:
        UserError: the arguments do not fit, or what they name cannot be read.
        Stopped: the time is over and something is left.
    """
    asked = parse("reproduce", _options, arguments)
    if asked.minutes is not None and not 0 < asked.minutes < float("inf"):
        raise UserError(f"minutes is {asked.minutes:g}, but must be above 0; change it with --minutes")
    from ncjax.reproduce.experiments import all_experiments, find_experiments

    if asked.page is not None:
        if asked.names:
            raise UserError("--page runs no experiment; leave the names out")
        from ncjax.reproduce.page import write_page

        print(f"page: {write_page(asked.page).absolute()}")
    elif asked.names:
        chosen = find_experiments(asked.names)
        from ncjax.distributed.processes import initialize

        initialize()
        from ncjax.reproduce.running import run_experiments

        line = command("reproduce", arguments)
        run_experiments(chosen, asked.scale, asked.workdir, line, data=asked.data, minutes=asked.minutes)
    else:
        from ncjax.reproduce.plan import overview

        print_text(overview(tuple(all_experiments().values()), asked.workdir))
        print_text(
            "\n~: not from a measured rate. Run one: ncjax reproduce NAME --scale cores --data FOLDER --minutes 60"
        )
