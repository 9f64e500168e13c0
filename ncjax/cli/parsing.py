# SPDX-License-Identifier: Apache-2.0
"""Arguments of a command, parsed by tyro from the signature of a function; every error is one line.

tyro draws its errors for people. Here a failed parse is explained from what its interface gives: the exception that it
was raised from, the arguments that it does not know, and which option fails when it is parsed alone.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import tyro

from ncjax.errors import UserError, did_you_mean
from ncjax.paths import user_path

T = TypeVar("T")
HELP = ("-h", "--help")
STAND_IN = "_"  # for a positional argument, where one option is parsed alone
NOUNS = {int: "a whole number", float: "a number", str: "a text", bool: "set without a value"}


def command(verb: str, arguments: Sequence[str]) -> str:
    """Returns the command line, to be kept with its results."""
    return " ".join(["ncjax", verb, *arguments])


def asks_help(arguments: Sequence[str]) -> bool:
    """Returns whether the arguments ask for help instead of work."""
    return any(argument in HELP for argument in arguments)


def parse(
    verb: str, options: Callable[..., T], arguments: Sequence[str], epilogue: Callable[[], str] | None = None
) -> T:
    """Parses arguments into those of a function, and calls it.

    Args:
        verb: the command without `ncjax`, for help and messages.
        options: its signature gives the options, its docstring the help.
        arguments: what follows the verb.
        epilogue: called for the text behind the help; only when help is asked for.

    Returns:
        What `options` returns.

    Raises:
        UserError: an argument is unknown, missing or does not parse; it is named.
        SystemExit: after help was printed.
    """
    try:
        found, unknown = _call_tyro(verb, options, arguments, printing=asks_help(arguments))
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise UserError(f"{_reason(verb, options, arguments, stop)}; {_see(verb)}") from stop
        if epilogue is not None and asks_help(arguments):
            print(epilogue())
        raise
    if unknown:
        raise UserError(f"{_unknown(unknown, flags_of(options))}; {_see(verb)}")
    return found


def _call_tyro(
    verb: str, options: Callable[..., T], arguments: Sequence[str], *, printing: bool = False
) -> tuple[T, list[str]]:
    """The result and the arguments that are unknown; what is drawn on stderr is thrown away."""
    with contextlib.redirect_stderr(io.StringIO()):
        return tyro.cli(
            _expanding(options),
            args=list(arguments),
            prog=f"ncjax {verb}",
            console_outputs=printing,
            return_unknown_args=True,
        )


def _expanding(options: Callable[..., T]) -> Callable[..., T]:
    """The same function, called with `~` expanded in its paths: shells leave that of `--workdir=~/run`."""

    @functools.wraps(options)
    def call(*values: Any, **named: Any) -> T:
        return options(*map(_expanded, values), **{name: _expanded(value) for name, value in named.items()})

    return call


def _expanded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_expanded, value))
    return user_path(value) if isinstance(value, Path) else value


def flags_of(kind: object, prefix: str = "") -> Mapping[str, object]:
    """Returns the options of a function or a dataclass with their types; fields of fields have dots: `--optim.lr`."""
    of_function = not dataclasses.is_dataclass(kind)
    found: dict[str, object] = {}
    for name, one in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(one):  # the config of a function has no prefix
            found |= flags_of(one, prefix if of_function else f"{prefix}{name}.")
        elif name != "return":
            found[f"--{prefix}{name}".replace("_", "-")] = one
    return found


def _see(verb: str) -> str:
    return f"see: ncjax {verb} --help"


def _reason(verb: str, options: Callable[..., object], arguments: Sequence[str], stop: BaseException) -> str:
    """Why a parse failed, by what is certain first."""
    if (error := _user_error(stop)) is not None:
        raise error
    for name, *values in options_in(arguments):
        if not _parses(verb, options, [STAND_IN, name, *values]):
            return _misfit(name, values, flags_of(options))
    parameters = inspect.signature(options).parameters.values()
    missing = [p.name.upper().replace("_", "-") for p in parameters if p.default is inspect.Parameter.empty]
    return f"ncjax {verb} needs {' '.join(missing)}" if missing else f"{' '.join(arguments)!r} cannot be read"


def _user_error(error: BaseException | None) -> UserError | None:
    """The error of ours that an exception was raised from, such as that of a dataclass that checks its ranges."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def options_in(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Yields each option with its values."""
    starts = [i for i, argument in enumerate(arguments) if argument.startswith("--") and len(argument) > 2]
    for start, end in itertools.pairwise([*starts, len(arguments)]):
        name, *joined = arguments[start].split("=", 1)
        yield [name, *joined, *arguments[start + 1 : end]]


def _parses(verb: str, options: Callable[..., object], arguments: Sequence[str]) -> bool:
    """Whether every argument is of its type; values out of range are no matter of parsing."""
    try:
        _call_tyro(verb, options, arguments)
    except SystemExit as stop:
        return _user_error(stop) is not None
    except UserError:
        pass
    return True


def _misfit(name: str, values: Sequence[str], flags: Mapping[str, object]) -> str:
    flag = name.replace("_", "-")
    if flag not in flags:  # --no-streamed, or --workdir:none
        return f"{' '.join([name, *values])!r} cannot be read"
    wanted = _describe(flags[flag])
    if not values:
        return f"{name} needs {wanted}"
    return f"{name} is {', '.join(map(repr, values))}, but must be {wanted}"


def _describe(kind: object) -> str:
    """What a value of a type is called."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(one) for one in inside if one is not types.NoneType)
    if origin is tuple:
        return f"{_describe(inside[0])}, or several"
    return next((noun for one, noun in NOUNS.items() if one is kind), "a path")


def _unknown(unknown: Sequence[str], flags: Mapping[str, object]) -> str:
    options = [argument.split("=", 1)[0] for argument in unknown if argument.startswith("-")]
    if not options:
        return f"unexpected argument {unknown[0]!r}"
    return f"unknown option {options[0]}{did_you_mean(options[0].replace('_', '-'), flags)}"
