# SPDX-License-Identifier: Apache-2.0
"""Columns of collapse follow `Evaluation.metrics`: a new metric needs no change here."""

import pytest

from ncjax.report.groups import Quantity, group_rows
from ncjax.report.levels import columns_of, hint
from ncjax.report.tables import collapse_table
from ncjax.results import MetricInfo
from tests.report.rows import make_row


def test_metrics_with_a_short_title_are_shown_in_their_order() -> None:
    values = {Quantity(name, "train", "fine"): value for name, value in (("b", 1.0), ("a", 2.0), ("hidden", 3.0))}
    metrics = {
        "b": MetricInfo(label="bee", scope="level", short="B"),
        "hidden": MetricInfo(label="not on the page", scope="level"),
        "a": MetricInfo(label="ay", scope="level", short="A"),
        "inside": MetricInfo(label="inside", scope="within", short="I"),
    }
    assert [(column.title, column.hint) for column in columns_of(metrics, "level")] == [("B", "bee"), ("A", "ay")]
    groups = group_rows([make_row(values=values)])
    table = collapse_table("fine", groups, ["one"], metrics, None)
    assert [(column.title, column.hint) for column in table.columns] == [("n", ""), ("B", "bee"), ("A", "ay")]
    assert [(line.label, [(cell.text, cell.small) for cell in line.cells]) for line in table.lines] == [
        ("one", [("1", ""), ("1.00", "–"), ("2.00", "–")])
    ]
    assert collapse_table("within", groups, ["one"], metrics, None).lines == ()
    assert "over resamples" not in table.caption


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (None, None, "", "m"),
        (0.0, None, "", "m; 0 or more"),
        (None, 1.0, "", "m; 1 or less"),
        (-1.0, 1.0, "higher", "m; -1 to 1, higher is better"),
        (None, None, "lower", "m; lower is better"),
    ],
)
def test_range_and_direction_of_a_metric_in_words(low, high, better, expected) -> None:
    assert hint(MetricInfo(label="m", scope="level", low=low, high=high, better=better)) == expected
