# SPDX-License-Identifier: Apache-2.0
"""Figures of a run: their numbers, and names of users that stand in them as they are."""

import csv
import html
import io
import re

import numpy as np
import pytest

from ncjax.report.groups import Quantity, group_rows
from ncjax.report.heat_maps import DistanceMap, distance_figure
from ncjax.report.run_figures import (
    accuracy_figure,
    clp_over_epochs,
    collapse_over_epochs,
    observed_collapse,
    training_curves,
)
from ncjax.storage.metrics import Record
from tests.report.rows import METRICS, changed, clp, make_record, make_row

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
    "</script><script>alert(1)</script>",
    "_hidden",
    "100 %",
    r"\alpha",
    "{x}",
    "é",
    "datum['x']",
)


def texts_of(figure) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", figure.svg())]


GROUPS = group_rows([make_row(epoch=epoch) for epoch in range(1, len(NAMES) + 1)])


def test_labels_of_networks_are_written_as_they_are() -> None:
    assert [text for text in texts_of(accuracy_figure(GROUPS, NAMES, {"raw": "x"})) if text in NAMES] == list(NAMES)


def test_names_of_classes_are_written_as_they_are_on_both_axes() -> None:
    names = [name for name in NAMES if len(name) < 20]  # longer ones end in dots
    figure = distance_figure([DistanceMap("x", 1, "train", np.eye(len(names)), 1)], names, (), ())
    assert sorted(t for t in texts_of(figure) if t in names) == sorted([*names, *names])


@pytest.mark.parametrize("name", ["$a$", "$5 and $6", r"$\frac{", "$$", "{x}", "datum['x']"])
def test_titles_and_views_are_written_as_they_are(name) -> None:
    assert name in texts_of(distance_figure([DistanceMap(name, 1, "train", np.eye(2), 1)], ("a", "b"), (), ()))
    assert f"CLP, {name}" in texts_of(accuracy_figure(GROUPS[:2], ("one", "other"), {"raw": name}))
    assert f"CLP, {name}" in texts_of(clp_over_epochs(GROUPS[:2], {"raw": name}, {}))


def test_accuracies_have_their_spread_n_and_a_whole_axis() -> None:
    rows = [make_row(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.7, 0.8, 0.9))]
    figure = accuracy_figure(group_rows(rows), ["one"], {"raw": "raw features"})
    of_clp = next(row for row in figure.rows if row["measure"] == "CLP, raw features")
    assert of_clp["mean"] == pytest.approx(80)
    assert (of_clp["low"], of_clp["high"], of_clp["n"]) == (pytest.approx(70), pytest.approx(90), 3)
    assert "one standard deviation over seeds (n = 3)" in figure.caption
    assert '"domain":[0,100]' in figure.spec()
    assert "there is no spread" in accuracy_figure(group_rows(rows[:1]), ["one"], {"raw": "x"}).caption


def test_numbers_of_a_figure_are_its_csv() -> None:
    figure = accuracy_figure(group_rows([make_row(accuracy=0.8)]), ["a, b"], {"raw": "raw"})
    ceiling, of_clp = csv.DictReader(io.StringIO(figure.csv()))
    assert (of_clp["network"], of_clp["measure"], float(of_clp["mean"])) == ("a, b", "CLP, raw", 80.0)
    assert (float(ceiling["mean"]), ceiling["low"], ceiling["n"]) == (85.0, "", "1")


def test_clp_over_epochs_needs_two_epochs_and_names_pixels() -> None:
    groups = group_rows([make_row(epoch=epoch, accuracy=epoch / 10) for epoch in (2, 5)])
    assert clp_over_epochs(groups[:1], {"raw": "raw"}, {}) is None
    figure = clp_over_epochs(groups, {"raw": "raw"}, {"raw": 0.33})
    assert [(row["epoch"], row["mean"]) for row in figure.rows if row["measure"] == "CLP, raw"] == [(2, 20), (5, 50)]
    assert {row["measure"] for row in figure.rows} == {"true-label probe (ceiling)", "CLP, raw", "coarse labels"}
    assert "raw 33.0 %" in figure.caption


def test_collapse_over_epochs_is_at_both_levels_and_splits() -> None:
    groups = group_rows([make_row(epoch=epoch) for epoch in (2, 5)])
    assert collapse_over_epochs(groups[:1], METRICS) is None
    rows = collapse_over_epochs(groups, METRICS).rows
    assert {(row["metric"], row["labels"], row["split"]) for row in rows} == {
        ("NC1", level, split) for level in ("coarse", "fine") for split in ("train", "test")
    }
    zero = [changed(make_row(epoch=epoch), {Quantity("nc1", "train", "coarse"): 0.0}) for epoch in (2, 5)]
    figure = collapse_over_epochs(group_rows(zero), METRICS)
    assert "log" not in figure.spec()  # 0 has no logarithm
    assert "NC1, log scale" in collapse_over_epochs(groups, METRICS).spec()


def test_curves_tell_settings_apart_and_seeds_not() -> None:
    names = [f"{labels}/lr=0.1/wd=0/seed={seed}" for labels in ("mod:5", "fine", "shuffled:mod:5:0") for seed in (0, 1)]
    values = {name: place / 10 for place, name in enumerate(names)}
    records = [Record(step=s, epoch=s, wall_secs=1.0, values={"train_accuracy": values}) for s in (1, 2)]
    figure = training_curves(records)
    assert list(dict.fromkeys(row["setting"] for row in figure.rows)) == [name[:-7] for name in names[::2]]
    first = figure.rows[0]
    assert (first["mean"], first["n"]) == (pytest.approx(5.0), 2)
    assert first["high"] - first["mean"] == pytest.approx(np.std([0, 10], ddof=1))
    assert training_curves([]) is None


def test_many_settings_are_label_maps_and_many_epochs_some_of_them() -> None:
    names = [f"{labels}/lr={lr}/wd=0/seed=0" for labels in ("mod:5", "fine") for lr in range(5)]
    records = [
        Record(step=e, epoch=e, wall_secs=0.0, values={"train_loss": dict.fromkeys(names, 0.5)}) for e in range(1, 351)
    ]
    figure = training_curves(records)
    assert {(row["setting"], row["n"]) for row in figure.rows} == {("mod:5", 5), ("fine", 5)}
    epochs = sorted({row["epoch"] for row in figure.rows})
    assert (len(epochs), epochs[0], epochs[-1]) == (100, 1, 350)
    assert "Of 350 epochs 100 are drawn" in figure.caption
    assert "a label map, with all its learning rates" in figure.caption


def test_what_training_observed_is_drawn() -> None:
    assert observed_collapse([make_record(10, 2)]) is None
    values = {f"{name}_{level}": {"m/seed=0": 1.0, "m/seed=1": None} for name in ("nc1", "cdnv") for level in ("fine",)}
    figure = observed_collapse([Record(step=e, epoch=e, wall_secs=0.0, values=values) for e in (1, 2)])
    assert {row["panel"] for row in figure.rows} == {"NC1, fine labels", "CDNV, fine labels"}
    assert {row["n"] for row in figure.rows} == {1}


def test_a_view_without_numbers_is_no_mark() -> None:
    rows = [changed(make_row(), {clp("umap"): None})]
    figure = accuracy_figure(group_rows(rows), ["one"], {"raw": "raw", "umap": "umap"})
    assert {row["measure"] for row in figure.rows} == {"true-label probe (ceiling)", "CLP, raw"}
