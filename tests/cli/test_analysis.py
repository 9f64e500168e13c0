# SPDX-License-Identifier: Apache-2.0
"""A page of features from files, one of several networks in a file, and pages of several runs."""

import dataclasses
import sys

import numpy as np
import pytest

from ncjax.cli.main import main
from ncjax.features.feature_set import FeatureSet
from ncjax.results import Evaluation
from tests.evaluation.arrays import arrays_of, pairs
from tests.report.rows import make_row, make_workdir

NAMES = ("mod:5/lr=0.1/wd=0/seed=0", "mod:2/lr=0.1/wd=0/seed=0")


def ncjax(*arguments) -> int:
    sys.argv = ["ncjax", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two networks in a file, as `ncjax features` writes it; the second is the first with more noise."""
    x, y, z, w = arrays_of(pairs(3.0, count=200))
    rng = np.random.default_rng(1)
    noisy = [a + rng.normal(size=a.shape).astype(np.float32) for a in (x, z)]
    classes = [f"class {number}" for number in range(10)]
    whole = FeatureSet.from_arrays(np.stack([x, noisy[0]]), y, np.stack([z, noisy[1]]), w, class_names=classes)
    return dataclasses.replace(whole, names=NAMES).save(tmp_path_factory.mktemp("exported") / "2.npz")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_member_of_a_file_is_evaluated_under_its_own_label_map_and_gets_a_page(exported, tmp_path) -> None:
    page, output = tmp_path / "page.html", tmp_path / "found.json"
    options = ("--member", NAMES[0], "--variants", "normalised", "--bootstrap", 0, "--report", page, "--output", output)
    assert ncjax("evaluate", exported, *options) == 0
    (row,) = Evaluation.from_json(output.read_text()).rows
    assert row.name == NAMES[0]
    assert row.super_class == (0, 1, 2, 3, 4) * 2
    text = page.read_text()
    for name in ("embedding", "confusion", "class_distances"):
        assert f'id="figure-{name}"' in text
    assert "the features came without images" in text


def test_members_are_named_by_number_too_and_unknown_ones_are_listed(exported, tmp_path, capsys) -> None:
    chosen = FeatureSet.open(exported).choose_member("1")
    assert chosen.names == NAMES[1:]
    assert chosen.default_map.super_class == (0, 1) * 5
    assert ncjax("evaluate", exported, "--member", "2", "--report", tmp_path / "page.html") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{exported}: there is no member '2'; known: {NAMES[0]}, {NAMES[1]}" in error
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "name", ["fine/lr=0.1/wd=0/seed=0", "shuffled:mod:5:0/lr=1/wd=0/seed=0", "mine", "file:gone/lr=1"]
)
def test_a_name_without_a_map_that_merges_leaves_the_label_map_to_the_user(name) -> None:
    features = pairs(3.0, count=50)
    named = dataclasses.replace(features, names=(name,), class_names=tuple(map(str, range(10))))
    assert named.choose_member(name).default_map is None


def test_page_of_a_run_where_it_is_asked_for_with_figures_as_files(tmp_path, capsys) -> None:
    workdir = make_workdir(tmp_path / "run", [make_row(), make_row(epoch=5)])
    assert ncjax("report", workdir, "--output", tmp_path / "page.html", "--figures", tmp_path / "figures") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'page.html'}"
    assert not (workdir / "report.html").exists()
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".svg", ".pdf", ".csv", ".json"}


def test_runs_that_are_not_comparable_are_one_line(tmp_path, capsys) -> None:
    one, other = (make_workdir(tmp_path / name, [make_row()], dataset=name) for name in ("digits", "cifar10"))
    assert ncjax("report", one, other, "--output", tmp_path / "page.html") == 2
    error = capsys.readouterr().err
    assert "cannot be compared: their data sets differ (digits, cifar10)" in error
    assert error.count("\n") == 1
    assert ncjax("report", one, one, "--output", tmp_path / "page.html") == 0
    assert "side by side" in (tmp_path / "page.html").read_text()


def test_a_page_cannot_be_asked_for_of_a_run_or_where_nothing_can_be_written(exported, tmp_path, capsys) -> None:
    workdir = make_workdir(tmp_path / "run", [make_row()])
    (workdir / "config.json").write_text("{}")
    assert ncjax("evaluate", workdir, "--report", tmp_path / "page.html") == 2
    assert "--report are of files" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert ncjax("evaluate", exported, "--report", tmp_path / "file" / "page.html") == 2
    assert "choose another --report" in capsys.readouterr().err
