# SPDX-License-Identifier: Apache-2.0
"""Arguments that do not fit are named in one line; nothing that tyro draws is read or shown."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pytest
import tyro

from ncjax.cli.parsing import command, flags_of, parse
from ncjax.config import Config, OptimConfig
from ncjax.errors import UserError


class Found(NamedTuple):
    folder: Path
    count: int
    rates: tuple[float, ...]
    mode: str
    quick: bool


def options(
    folder: tyro.conf.Positional[Path],
    count: int = 3,
    rates: tuple[float, ...] = (),
    mode: Literal["fast", "slow"] = "fast",
    quick: bool = False,
) -> Found:
    """Do something.

    Args:
        folder: Where [path].
        count: How often [times].
        rates: At which rates [1].
        mode: How [name].
        quick: Whether [yes or no].
    """
    return Found(folder, count, rates, mode, quick)


def test_values_come_in_their_types():
    found = parse("do", options, ["here", "--count", "4", "--rates", "0.1", "-2", "--mode=slow", "--quick"])
    assert found == Found(Path("here"), 4, (0.1, -2.0), "slow", True)
    assert parse("do", options, ["--no-quick", "here"]) == Found(Path("here"), 3, (), "fast", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here", "--cuont", "4"], "unknown option --cuont (did you mean --count?)"),
        (["here", "--zzz=4"], "unknown option --zzz;"),
        (["here", "there"], "unexpected argument 'there'"),
        (["here", "--count", "four"], "--count is 'four', but must be a whole number"),
        (["here", "--count=four"], "--count is 'four', but must be a whole number"),
        (["here", "--count", "--quick"], "--count needs a whole number"),
        (["here", "--rates", "1", "x"], "--rates is '1', 'x', but must be a number, or several"),
        (["here", "--mode", "medium"], "--mode is 'medium', but must be one of fast, slow"),
        (["--mode", "medium", "here"], "--mode is 'medium', 'here', but must be one of fast, slow"),
        (["here", "--mode", "slow", "--count", "four"], "--count is 'four'"),
        (["--count", "4"], "ncjax do needs FOLDER"),
        ([], "ncjax do needs FOLDER"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message, capsys):
    with pytest.raises(UserError) as refusal:
        parse("do", options, arguments)
    assert str(refusal.value).startswith(message.rstrip(";"))
    assert str(refusal.value).endswith("; see: ncjax do --help")
    assert capsys.readouterr() == ("", "")


def test_an_error_of_ours_inside_tyro_is_raised_as_it_is():
    default = Config()

    def of_config(config: Annotated[Config, tyro.conf.arg(name="")] = default) -> Config:
        return config

    with pytest.raises(UserError, match=r"^optim.batch is 0, but must be from 1 to"):
        parse("do", of_config, ["--optim.batch", "0"])
    changed = parse("do", of_config, ["--optim.lr", "0.5", "0.25", "--optim.batch", "7"])
    assert changed == Config(optim=OptimConfig(lr=(0.5, 0.25), batch=7))


def test_an_error_of_the_function_is_raised_as_it_is():
    def failing(count: int = 1) -> int:
        raise UserError(f"count is {count}")

    with pytest.raises(UserError, match=r"^count is 2$"):
        parse("do", failing, ["--count", "2"])


def test_help_ends_with_the_epilogue(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("do", options, ["--help"], lambda: "known names: a, b")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: ncjax do" in printed
    assert "How often [times]" in printed
    assert printed.endswith("known names: a, b\n")


def test_the_epilogue_is_only_made_for_help():
    def never() -> str:
        raise AssertionError

    assert parse("do", options, ["here"], never).count == 3


def test_options_of_a_config_have_dots():
    flags = flags_of(Config)
    assert flags["--optim.weight-decay"] == tuple[float, ...]
    assert flags["--seeds"] is int
    assert "--optim" not in flags


def test_the_command_is_kept_as_it_was_typed():
    assert command("bench train", ["c.py", "--seeds", "2"]) == "ncjax bench train c.py --seeds 2"


def places(
    folder: tyro.conf.Positional[tuple[Path, ...]], output: Path | None = None, files: tuple[Path, ...] = ()
) -> tuple[tuple[Path, ...], Path | None, tuple[Path, ...]]:
    """Do something.

    Args:
        folder: Where [paths].
        output: Where to [path].
        files: Of what [paths].
    """
    return folder, output, files


@pytest.mark.parametrize("line", ["~/a b --output=~/c --files ~/d e", "~/a b --output ~/c --files=~/d e"])
def test_home_folders_are_expanded_in_every_path(line, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of one")
    home = Path("/home/of one")
    assert parse("do", places, line.split()) == ((home / "a", Path("b")), home / "c", (home / "d", Path("e")))


def test_a_home_folder_that_is_not_known_is_one_line():
    with pytest.raises(UserError, match="the home folder in ~no-such-user/x is not known"):
        parse("do", places, ["a", "--output=~no-such-user/x"])
