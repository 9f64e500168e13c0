# SPDX-License-Identifier: Apache-2.0
"""The headline: one view that was named before, and the controls of its own label map."""

import itertools

import pytest

from ncjax.config import EvaluateConfig
from ncjax.report.groups import group_rows, views_of
from ncjax.report.main_result import headline, main_group
from ncjax.report.read import Results
from tests.report.rows import VIEWS, changed, clp, make_evaluation, make_row

SCORES = {"raw": 0.61, "normalised": 0.72, "tsne": 0.93}
MAPS = {"mod:5": (0, 1, 2, 0), "mod:2": (0, 1, 0, 1)}


def said(rows, view):
    groups = group_rows(rows)
    main = main_group(groups)
    assert main is not None
    return headline(main, groups, views_of(groups, VIEWS), view)


def with_scores(row, scores):
    return changed(row, {clp("raw"): None} | {clp(view): score for view, score in scores.items()})


@pytest.mark.parametrize(
    ("chosen", "evaluated"),
    [(chosen, some) for chosen in SCORES for size in (1, 2, 3) for some in itertools.combinations(SCORES, size)],
)
def test_the_number_is_that_of_the_chosen_view_or_none(chosen, evaluated):
    """Whatever the others reach on the test set."""
    text = said([with_scores(make_row(), {view: SCORES[view] for view in evaluated})], chosen)
    shown = {view for view, score in SCORES.items() if f"{100 * score:.1f}" in text}
    assert shown == ({chosen} if chosen in evaluated else set())
    assert "best" not in text
    if chosen not in evaluated:
        assert (
            f"{chosen} (evaluate.headline), was not evaluated: run ncjax evaluate WORKDIR --variants {chosen}" in text
        )


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(MAPS, 2)))
def test_controls_are_those_of_the_same_label_map(first, second):
    rows = []
    for number, name in enumerate((first, second)):
        common = {"label_map": name, "super_class": MAPS[name]}
        rows += [
            make_row(accuracy=0.8, **common),
            make_row("random_init", accuracy=0.3 + number / 10, epoch=0, **common),
        ]
        rows += [make_row("raw_pixels", accuracy=0.2 + number / 10, epoch=None, **common)]
    assert "random initialisation 30.0\u00a0%, raw pixels 20.0\u00a0%" in said(rows, "raw")
    without = [row for row in rows if row.kind == "trained" or row.label_map == second]
    assert "Without training" not in said(without, "raw")


@pytest.mark.parametrize(("config", "view"), [
    ({}, "normalised"), ({"evaluate": {}}, "normalised"), ({"evaluate": {"headline": "tsne"}}, "tsne"),
    ({"evaluate": None}, "normalised"),
])  # fmt: skip
def test_the_view_is_that_of_the_config(config, view):
    assert Results(evaluation=make_evaluation([make_row()]), config=config).headline == view
    assert EvaluateConfig().headline == "normalised"
