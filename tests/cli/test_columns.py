# SPDX-License-Identifier: Apache-2.0
"""Two columns that fit a terminal; in a pipe every name is one line."""

import os
import sys

import pytest

from ncjax.cli import columns as module
from ncjax.cli.columns import two_columns
from ncjax.cli.verbs import GROUPS, VERBS, overview


@pytest.fixture
def terminal(monkeypatch):
    def of(columns):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(module.shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((columns, 24)))

    return of


@pytest.mark.parametrize("columns", [40, 80])
def test_lines_fit_the_terminal(terminal, columns):
    terminal(columns)
    lines = two_columns({"a": "word " * 50, "long": "short"}).splitlines()
    assert all(len(line) <= columns for line in lines)
    assert all(line.startswith("        ") for line in lines[1:-1])
    assert lines[-1] == "  long  short"


def test_a_pipe_gets_one_line_for_each_name():
    assert two_columns({"a": "word " * 50, "long": "short"}) == f"  a     {'word ' * 50}".rstrip() + "\n  long  short"


def test_the_overview_fits_a_terminal_of_80_columns(terminal):
    terminal(80)
    lines = overview("ncjax", "verb", VERBS, GROUPS).splitlines()
    assert max(map(len, lines)) <= 80
