# SPDX-License-Identifier: Apache-2.0
"""Tables of the page: what is marked, what folds, what sorts."""

import pytest

from ncjax.report.groups import group_rows
from ncjax.report.main_result import clp, main_group
from ncjax.report.number_formats import percent
from ncjax.report.table import Head, Table
from ncjax.report.tables import Compared, grid_table, main_table
from tests.report.rows import make_row

CLP = Compared("CLP, %", clp("raw"), "higher", percent)


def marks_of(scores, better="higher"):
    """Marks of settings whose seeds have these scores."""
    rows = [
        make_row(lr=lr, seed=seed, accuracy=accuracy)
        for lr, of_seeds in scores.items()
        for seed, accuracy in enumerate(of_seeds)
    ]
    table = grid_table(group_rows(rows), [CLP._replace(better=better)], None)
    return {line.cells[0].text: line.cells[3].mark for line in table.lines}


def test_the_best_is_marked_and_what_is_not_told_from_it() -> None:
    scores = {0.1: (0.80, 0.82), 0.2: (0.83, 0.85), 0.3: (0.60, 0.61), 0.4: (0.82, 0.84)}
    assert marks_of(scores) == {"0.1": "", "0.2": "best", "0.3": "", "0.4": "tie"}
    assert marks_of(scores, "lower") == {"0.1": "", "0.2": "", "0.3": "best", "0.4": ""}
    assert set(marks_of(scores, "").values()) == {""}


def test_one_seed_is_never_a_tie_and_equals_are_not_best() -> None:
    assert marks_of({0.1: (0.8,), 0.2: (0.8001,)}) == {"0.1": "", "0.2": "best"}
    assert set(marks_of({0.1: (0.8,), 0.2: (0.8,)}).values()) == {""}


def test_a_grid_needs_two_settings_and_controls_are_none() -> None:
    groups = group_rows([make_row(), make_row("random_init"), make_row("fine")])
    assert grid_table(groups, [CLP], None) is None


def test_cells_have_the_number_that_they_sort_by_and_n() -> None:
    groups = group_rows([make_row(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.7, 0.9))])
    main = main_group(groups)
    table = main_table(groups, ["one"], {"raw": "raw features"}, main)
    (line,) = table.lines
    assert line.main
    assert [column.title for column in table.columns][:2] == ["n", "epoch"]
    found = dict(zip([column.title for column in table.columns], line.cells, strict=True))
    assert (found["n"].text, found["CLP: raw features"].text) == ("2", "80.0 ± 14.1")
    assert found["CLP: raw features"].value == pytest.approx(0.8)


def test_groups_are_columns_beside_each_other_and_the_first_of_each_stands() -> None:
    heads = [Head("n"), Head("a", group="x"), Head("b", group="x"), Head("c", group="y"), Head("d", group="x")]
    table = Table("t", "Network", tuple(heads), (), "")
    assert table.groups == [("", 1), ("x", 2), ("y", 1), ("x", 1)]
    assert table.folds == [None, None, 1, None, None]
