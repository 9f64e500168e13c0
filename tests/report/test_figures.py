# SPDX-License-Identifier: Apache-2.0
"""Names of users stand in figures as they are."""

import html
import re

import numpy as np
import pytest

from ncjax.report.figures import accuracy_figure, distance_figure, epochs_figure
from ncjax.report.groups import group_rows
from tests.report.rows import make_row

NAMES = (
    "$",
    "a$b",
    "$a$",
    "$5 and $6",
    r"$\frac{",
    r"\$x\$",
    r"\$",
    "$$",
    "$x_1$ $",
    "<b>&amp;",
    "_hidden",
    "100 %",
    r"\alpha",
    "{x}",
    "é",
)


def texts_of(svg):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


GROUPS = group_rows([make_row(epoch=epoch) for epoch in range(1, len(NAMES) + 1)])


def test_labels_of_networks_are_written_as_they_are():
    assert [text for text in texts_of(accuracy_figure(GROUPS, NAMES, {"raw": "x"})) if text in NAMES] == list(NAMES)


def test_names_of_classes_are_written_as_they_are_on_both_axes():
    assert [t for t in texts_of(distance_figure([("x", np.eye(len(NAMES)))], NAMES)) if t in NAMES] == [*NAMES, *NAMES]


@pytest.mark.parametrize("name", ["$a$", "$5 and $6", r"$\frac{", "$$"])
def test_titles_and_views_are_written_as_they_are(name):
    assert name in texts_of(distance_figure([(name, np.eye(2))], ("one", "other")))
    assert f"CLP, {name}" in texts_of(accuracy_figure(GROUPS[:2], ("one", "other"), {"raw": name}))
    assert f"CLP, {name}" in texts_of(epochs_figure(GROUPS[:2], {"raw": name}))
