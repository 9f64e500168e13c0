# SPDX-License-Identifier: Apache-2.0
"""The table of verbs: complete, and its overview loads neither JAX nor tyro."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from ncjax import __version__
from ncjax.cli.verbs import BENCHMARKS, GROUPS, INNER, OF_DATA, VERBS, Verb, dispatch, overview
from ncjax.errors import UserError

ALL = [*VERBS.values(), *BENCHMARKS.values(), *OF_DATA.values()]


@pytest.mark.parametrize("verb", ALL, ids=lambda verb: verb.function)
def test_every_verb_is_a_function_of_its_arguments(verb):
    module, name = verb.function.split(".")
    function = getattr(import_module(f"ncjax.cli.{module}"), name)
    assert list(inspect.signature(function).parameters) == ["arguments"]


@pytest.mark.parametrize(
    ("path", "verbs", "groups"),
    [("ncjax", VERBS, GROUPS), ("ncjax bench", BENCHMARKS, {}), ("ncjax data", OF_DATA, {})],
)
def test_the_overview_has_a_line_for_each_verb(path, verbs, groups):
    lines = overview(path, "verb", verbs, groups).splitlines()
    inner = {f"{name} {one}": found for name, table in INNER.items() for one, found in table.items()}
    for name, verb in (verbs | (inner if verbs is VERBS else {})).items():
        usage = f"  {path} {name} {verb.usage}".rstrip()
        (line,) = (line for line in lines if line.startswith(f"{usage}  ") and line.endswith(f"  {verb.summary}"))
        assert len(line) <= 120


def test_every_verb_is_in_one_group():
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(VERBS)
    text = overview("ncjax", "verb", VERBS, GROUPS)
    assert [text.index(f"\n\n{title}:\n") for title in GROUPS] == sorted(
        text.index(f"{title}:") - 2 for title in GROUPS
    )
    assert "others:" not in text


def test_verbs_in_no_group_are_listed_too():
    verbs = {"one": Verb("", "does it", ""), "two": Verb("X", "does more", "")}
    text = overview("ncjax", "verb", verbs, {"first": ("one",)})
    assert "first:\n  ncjax one    does it\n\nothers:\n  ncjax two X  does more\n" in text


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_verb_the_overview_is_printed(arguments, capsys):
    dispatch("ncjax", "verb", VERBS, arguments)
    assert capsys.readouterr().out == overview("ncjax", "verb", VERBS, GROUPS) + "\n"


@pytest.mark.parametrize(("option", "printed"), [("--help", "ncjax demo"), ("--version", f"ncjax {__version__} (JAX ")])
def test_help_and_version_load_neither_jax_nor_tyro(option, printed):
    code = (
        f"import sys; from ncjax.cli.main import main; sys.argv = ['ncjax', '{option}']; main();"
        "sys.exit(len({'jax', 'tyro', 'numpy', 'ncjax.config'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed in ended.stdout


def test_an_unknown_verb_is_refused_with_those_that_are_known():
    verbs = {"one": Verb("", "does it", "training.demo_verb"), "two": Verb("", "does it", "training.demo_verb")}
    with pytest.raises(UserError, match=r"^unknown verb 'three'; known: one, two$"):
        dispatch("ncjax", "verb", verbs, ["three"])
    with pytest.raises(UserError, match=r"^unknown verb 'tow' \(did you mean two\?\); known: one, two$"):
        dispatch("ncjax", "verb", verbs, ["tow"])
