# SPDX-License-Identifier: Apache-2.0
"""Several runs on one page, and those that are refused because their numbers do not mean the same."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.evaluation.store import write_evaluation
from ncjax.examples import Examples
from ncjax.report import write_report
from tests.report.rows import make_evaluation, make_row, make_workdir, undrawn
from tests.report.test_page import lines_of, text_of
from tests.report.test_theory import make_sweep

__all__ = ["undrawn"]
pytestmark = pytest.mark.usefixtures("undrawn")

CONFIG = {"evaluate": {"headline": "raw"}, "model": {"name": "cnn", "width": 8}}


def run(folder: Path, accuracy: float = 0.8, **fields) -> Path:
    rows = [make_row(seed=seed, accuracy=accuracy, epoch=epoch) for seed in (0, 1) for epoch in (5, 20)]
    rows += [make_row("random_init", accuracy=0.4, epoch=0), make_row("raw_pixels", accuracy=0.3, epoch=None)]
    return make_workdir(folder, rows, **({"config": CONFIG, "class_names": ("a", "b")} | fields))


def test_headlines_controls_and_configs_stand_side_by_side(tmp_path: Path) -> None:
    wide = {**CONFIG, "model": {"name": "cnn", "width": 16}}
    folders = [run(tmp_path / "narrow"), run(tmp_path / "wide", 0.9, config=wide)]
    target = tmp_path / "both.html"
    assert write_report(folders, target) == target
    page = target.read_text()
    head, first, second = lines_of(page, "headlines")
    assert "CLP, raw features (%)" in head
    assert (
        first
        == "toy on digits (narrow) 2 mod:5 80.0 ± 0.0 90.0 ± 0.0 85.0 ± 0.0 0.0123 ± 0.0000 1.50 ± 0.00 – 40.0 30.0"
    )
    assert second.startswith("toy on digits (wide) 2 mod:5 90.0")
    assert lines_of(page, "differences")[1:] == ["model.width 8 16"]
    assert re.findall(r'<figure id="figure-(\w+)"', page) == ["accuracies", "runs_over_epochs"]
    assert f"ncjax report {folders[0]} {folders[1]}" in text_of(page)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dataset": "cifar10"}, r"their data sets differ \(digits, cifar10\)"),
        ({"class_names": ("a", "c")}, r"their fine classes differ \(a, b, a, c\)"),
        ({"config": {"evaluate": {"headline": "tsne"}}}, r"their views of the headline differ \(raw, tsne\)"),
    ],
)
def test_what_is_not_comparable_is_refused_with_the_reason(tmp_path: Path, fields, words) -> None:
    folders = [run(tmp_path / "one"), run(tmp_path / "other", **fields)]
    with pytest.raises(UserError, match=words) as caught:
        write_report(folders, tmp_path / "page.html")
    assert all(str(folder) in str(caught.value) for folder in folders)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_other_examples_of_the_same_data_are_refused(tmp_path: Path) -> None:
    folders = [run(tmp_path / "one"), run(tmp_path / "other")]
    for folder, count in zip(folders, (10, 12), strict=True):
        labels = np.arange(count, dtype=np.int32) % 2
        examples = Examples(train_labels=labels, test_labels=labels, rows=np.arange(2, dtype=np.int32))
        write_evaluation(folder, replace(make_evaluation([make_row()], config=CONFIG), examples=examples))
    with pytest.raises(UserError, match="their training labels differ"):
        write_report(folders, tmp_path / "page.html")


def test_runs_without_a_headline_and_synthetic_sweeps_are_refused(tmp_path: Path) -> None:
    good, bare = run(tmp_path / "one"), make_workdir(tmp_path / "bare", [make_row("fine")], config=CONFIG)
    with pytest.raises(UserError, match="fine classes differ"):
        write_report([good, bare], tmp_path / "page.html")
    with pytest.raises(UserError, match="synthetic setting, which is not compared"):
        write_report([good, make_sweep(tmp_path / "theory")], tmp_path / "page.html")
    with pytest.raises(UserError, match="nothing to report"):
        write_report([], tmp_path / "page.html")


def test_the_same_run_twice_has_labels_that_differ(tmp_path: Path) -> None:
    folder = run(tmp_path / "one")
    page = write_report([folder, folder], tmp_path / "page.html").read_text()
    labels = [line.split(" 2 mod:5")[0] for line in lines_of(page, "headlines")[1:]]
    assert len(set(labels)) == 2
    assert "The configs differ in nothing but names." in text_of(page)
