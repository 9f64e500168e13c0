# SPDX-License-Identifier: Apache-2.0
"""Heat maps: which cells are marked, what is averaged, what a confusion counts."""

import numpy as np
import pytest

from ncjax.report.heat_maps import (
    MOST_CLASSES,
    DistanceMap,
    confusion_figure,
    confusion_rows,
    distance_figure,
    sweep_figure,
)


def test_pairs_that_share_a_super_class_are_marked_and_the_diagonal_is_not() -> None:
    maps = [DistanceMap("one", epoch, "train", np.ones((4, 4)), 2) for epoch in (0, 5)]
    figure = distance_figure(maps, "abcd", (0, 1, 0, 1), ("a + c", "b + d"))
    marked = {(row["class"], row["other"]) for row in figure.rows if row["merged"]}
    assert marked == {("a", "c"), ("c", "a"), ("b", "d"), ("d", "b")}
    spec = figure.spec()
    assert '"input":"range"' in spec
    assert '"value":[0,5]' in spec
    assert '"input":"radio"' not in spec  # one split is no choice


def test_splits_are_a_choice_and_classes_without_examples_are_left_out() -> None:
    matrix = np.array([[1.0, np.nan], [np.nan, np.nan]])
    maps = [DistanceMap("one", 5, split, matrix, 1) for split in ("train", "test")]
    figure = distance_figure(maps, "ab", (), ())
    assert [(row["class"], row["split"]) for row in figure.rows] == [("a", "train"), ("a", "test")]
    assert '"options":["train","test"]' in figure.spec()
    assert '"input":"range"' not in figure.spec()
    assert distance_figure([], "ab", (), ()) is None


def test_many_classes_are_averaged_over_pairs_of_super_classes() -> None:
    classes = MOST_CLASSES + 2
    owner = tuple(number // 2 for number in range(classes))
    matrix = np.where(np.equal.outer(owner, owner), 2.0, 8.0)
    np.fill_diagonal(matrix, 1.0)
    names = [f"class {number}" for number in range(classes)]
    groups = [f"group {number}" for number in range(classes // 2)]
    figure = distance_figure([DistanceMap("one", 5, "train", matrix, 1)], names, owner, groups)
    distances = {(row["class"], row["other"]): row["distance"] for row in figure.rows}
    assert len(distances) == (classes // 2) ** 2
    assert {distances[name, name] for name in groups} == {2.0}  # of two merged classes, not of one class
    assert distances["group 0", "group 1"] == 8.0
    assert "Averaged" in figure.caption


def test_confusion_counts_examples_and_shares_add_to_a_hundred() -> None:
    rng = np.random.default_rng(0)
    true, found = rng.integers(3, size=100), rng.integers(-1, 3, size=100)
    rows = confusion_rows(true, found, "abc")
    for row in rows:
        i, j = "abc".index(row["true"]), "abc".index(row["recovered"])
        assert row["count"] == ((true == i) & (found == j)).sum()
    for name in "abc":
        assert sum(row["share"] for row in rows if row["true"] == name) == pytest.approx(100)


def test_confusion_begins_with_the_view_of_the_headline_on_the_test_split() -> None:
    cells = confusion_rows(np.array([0, 1]), np.array([0, 0]), "ab")
    rows = [
        {"view": view, "split": split, **cell}
        for view in ("raw", "t-SNE")
        for split in ("train", "test")
        for cell in cells
    ]
    spec = confusion_figure(rows, "ab", "one", "t-SNE").spec()
    assert '"name":"chosen_view","value":"t-SNE"' in spec or '"value":"t-SNE"' in spec
    assert '"value":"test"' in spec
    assert confusion_figure([], "ab", "one", "raw") is None


def test_a_sweep_needs_two_rates_or_two_decays() -> None:
    def row(lr: float, wd: float) -> dict:
        return {"quantity": "CLP", "label map": "mod:5", "lr": lr, "wd": wd, "mean": lr + wd, "sd": None, "n": 1}

    assert sweep_figure([row(0.1, 0.1)], {}) is None
    assert sweep_figure([dict(row(0.1, 0.1), mean=None), row(0.2, 0.1)], {}) is None
    figure = sweep_figure([row(0.1, 0.1), row(0.2, 0.1)], {"CLP": "higher"})
    assert "higher for CLP" in figure.caption
    assert len(figure.rows) == 2
