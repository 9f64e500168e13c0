# SPDX-License-Identifier: Apache-2.0
"""The table of verbs: complete, and its overview loads neither JAX nor tyro."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from ncjax.cli.verbs import BENCHMARKS, VERBS, Verb, dispatch, overview
from ncjax.errors import UserError

ALL = [*VERBS.values(), *BENCHMARKS.values()]


@pytest.mark.parametrize("verb", ALL, ids=lambda verb: verb.function)
def test_every_verb_is_a_function_of_its_arguments(verb):
    module, name = verb.function.split(".")
    function = getattr(import_module(f"ncjax.cli.{module}"), name)
    assert list(inspect.signature(function).parameters) == ["arguments"]


@pytest.mark.parametrize(("path", "verbs"), [("ncjax", VERBS), ("ncjax bench", BENCHMARKS)])
def test_the_overview_has_a_line_for_each_verb(path, verbs):
    lines = overview(path, "verb", verbs).splitlines()
    for name, verb in verbs.items():
        (line,) = (line for line in lines if line.strip().startswith(f"{path} {name}"))
        assert line.strip().startswith(f"{path} {name} {verb.usage}".strip())
        assert line.endswith(verb.summary)
        assert len(line) <= 120


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_verb_the_overview_is_printed(arguments, capsys):
    dispatch("ncjax", "verb", VERBS, arguments)
    assert capsys.readouterr().out == overview("ncjax", "verb", VERBS) + "\n"


def test_the_help_loads_neither_jax_nor_tyro():
    code = (
        "import sys; from ncjax.cli.main import main; sys.argv = ['ncjax', '--help']; main();"
        "sys.exit(len({'jax', 'tyro', 'numpy', 'ncjax.config'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ncjax demo" in ended.stdout


def test_an_unknown_verb_is_refused_with_those_that_are_known():
    verbs = {"one": Verb("", "does it", "training.demo_verb"), "two": Verb("", "does it", "training.demo_verb")}
    with pytest.raises(UserError, match=r"^unknown verb 'three'; known: one, two$"):
        dispatch("ncjax", "verb", verbs, ["three"])
