# SPDX-License-Identifier: Apache-2.0
"""Arguments of a command: a config file, and options that follow from the signature of a function."""

import contextlib
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from ncjax.config import C, Config, load_config_of
from ncjax.errors import UserError


def command(verb: str, arguments: list[str]) -> str:
    """The command line, to be kept with its results."""
    return " ".join(["ncjax", verb, *arguments])


def base_config(verb: str, arguments: list[str]) -> tuple[str, Config, list[str]]:
    """Name of the command, the config that its first argument names, and the other arguments."""
    return base_config_of(Config, verb, arguments, "configs/coarse_cifar10_cpu.py")


def base_config_of(kind: type[C], verb: str, arguments: list[str], example: str) -> tuple[str, C, list[str]]:
    """`base_config` for another kind of config, of which `example` is a file."""
    if not arguments:
        raise UserError(f"ncjax {verb} needs a config file, such as: ncjax {verb} {example}")
    if arguments[0].startswith("-"):
        return f"{verb} CONFIG", kind(), arguments
    return f"{verb} {arguments[0]}", load_config_of(kind, Path(arguments[0])), arguments[1:]


def parse(verb: str, options: Callable[..., Any], arguments: list[str]) -> Any:
    """Parse with tyro; its boxed message becomes one line.

    Raises:
        UserError: the arguments do not fit.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(options, args=arguments, prog=f"ncjax {verb}", description=None)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(f"{_first_paragraph(box.getvalue())} See: ncjax {verb} --help") from None


def _first_paragraph(box: str) -> str:
    """The text between the title and the second rule of a box, which is drawn with `─` or, on plain terminals, `-`."""
    lines = [line.strip("│|╭╮╰╯+ ") for line in box.splitlines()[1:]]
    text = itertools.dropwhile(_is_rule, lines)
    return " ".join(itertools.takewhile(lambda line: not _is_rule(line), text)).strip().rstrip(".") + "."


def _is_rule(line: str) -> bool:
    return not line.strip("─-")
