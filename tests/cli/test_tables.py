# SPDX-License-Identifier: Apache-2.0
"""Tables in a terminal: split where they are wide, whole where they fit, nothing lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncjax.cli.tables import GAP, column_widths, fitting_tables, print_text, text_blocks, wrapped
from ncjax.report.markdown import markdown_table

WIDE = [
    ["network", "coarse test", "true-label probe", "CLP: centred, normalised", "NC1 coarse"],
    ["trained on coarse labels (mod:5)", "98.8 ± 0.2", "97.4 ± 0.2", "92.2 ± 2.5", "0.0674 ± 0.0058"],
    ["raw pixels", "–", "97.0", "95.1", "1.16"],
]


def width_of(table):
    return sum(column_widths(table)) + GAP * (len(table[0]) - 1)


def test_a_table_that_fits_stays_whole():
    assert fitting_tables(WIDE, 200) == [WIDE]


def test_a_wide_table_becomes_several_with_the_names_in_each():
    parts = fitting_tables(WIDE, 60)
    assert len(parts) > 1
    assert all(width_of(part) <= 60 for part in parts)
    assert all([line[0] for line in part] == [line[0] for line in WIDE] for part in parts)
    joined = [[line[0], *(cell for part in parts for cell in part[number][1:])] for number, line in enumerate(WIDE)]
    assert joined == WIDE


cells = st.text("ab 1.±", min_size=1, max_size=40).map(lambda text: text.strip() or "–")


@given(
    st.integers(1, 8).flatmap(lambda columns: st.lists(st.lists(cells, min_size=columns, max_size=columns), min_size=2))
)
def test_every_column_is_in_one_of_the_parts(table):
    parts = fitting_tables(table, 80)
    for number, line in enumerate(table):
        assert [line[0], *(cell for part in parts for cell in part[number][1:])] == line


def test_blocks_of_a_text_are_its_tables_and_the_rest():
    text = f"before\n\n{markdown_table([['a', 'b'], ['1', '']])}\n\nafter"
    assert list(text_blocks(text)) == ["before\n", [["a", "b"], ["1", ""]], "\nafter"]


def test_text_is_wrapped_at_spaces_and_paths_are_left_alone():
    assert wrapped("one two three", 8) == "one two\nthree"
    assert wrapped("report: /a/very/long/path", 8) == "report: /a/very/long/path"


def test_files_get_markdown_as_it_is(capsys):
    text = f"before\n\n{markdown_table(WIDE)}"
    print_text(text)
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_what_is_drawn_fits_and_holds_every_cell(columns, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "40")  # without it the width of a terminal without colours is taken to be 80
    monkeypatch.setenv("TERM", "dumb")
    print_text(f"A [bracket] stays.\n\n{markdown_table(WIDE)}")
    out = capsys.readouterr().out
    assert "A [bracket] stays." in out
    assert max(map(len, out.splitlines())) <= columns
    for cell in ("98.8 ± 0.2", "0.0674 ± 0.0058", "raw pixels", "NC1 coarse", "95.1"):
        assert cell in out
