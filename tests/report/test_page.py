# SPDX-License-Identifier: Apache-2.0
"""The page of a work directory: its numbers, its gaps, its escapes and what it shows of failures."""

import html
import re
from pathlib import Path

import pytest

from ncjax.report import write_report
from ncjax.report.groups import Quantity
from tests.report.rows import (
    COARSE_TEST,
    changed,
    clp,
    make_record,
    make_row,
    make_workdir,
    undrawn,
    write_metrics,
    write_run_file,
)

__all__ = ["undrawn"]
pytestmark = pytest.mark.usefixtures("undrawn")

RAW = {"evaluate": {"headline": "raw"}}


def text_of(page: str) -> str:
    """The words that a reader sees, with single spaces."""
    page = re.sub(r"<(style|svg|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def report(workdir: Path) -> str:
    path = write_report(workdir)
    assert path == workdir / "report.html"
    assert [other.name for other in workdir.glob(".*")] == []  # no draft is left
    return path.read_text(encoding="utf-8")


def table_named(page: str, name: str) -> str:
    return page.split(f'id="table-{name}"')[1].split("</table>")[0]


def lines_of(page: str, name: str) -> list[str]:
    """Head and lines of a table as words; groups of columns are left out."""
    lines = re.findall(r"<tr\b(?! class=.groups).*?</tr>", table_named(page, name), re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]+>", " ", line)).split()) for line in lines]


def test_headline_states_clp_ceiling_and_controls(tmp_path: Path) -> None:
    rows = [make_row(accuracy=0.8), make_row("random_init", accuracy=0.4), make_row("raw_pixels", accuracy=0.3)]
    text = text_of(report(make_workdir(tmp_path, rows, config=RAW)))
    assert "From a network that saw only the labels mod:5" in text
    assert "recover the fine classes at 80.0 % on the test set (k-means on raw features)" in text
    assert "5.0 points below the 85.0 % of a probe" in text
    assert "random initialisation 40.0 %, raw pixels 30.0 %" in text


def test_headline_is_of_the_first_setting_whichever_is_best_on_the_test_set(tmp_path: Path) -> None:
    rows = [
        changed(make_row(lr=0.1, accuracy=0.8), {COARSE_TEST: 0.7}),
        changed(make_row(lr=0.01, accuracy=0.9), {COARSE_TEST: 0.8}),
    ]
    page = report(make_workdir(tmp_path, rows, config=RAW))
    assert "saw only the labels mod:5, the first of 2 settings, clustering" in text_of(page)
    assert "recover the fine classes at 80.0 %" in text_of(page)
    for name in ("main_table", "clusters", "distances", "collapse_coarse", "grid"):
        (marked,) = re.findall(r'<tr class="main">.*?</tr>', table_named(page, name), re.DOTALL)
        assert "lr=0.1" in marked or ">0.1<" in marked
    assert 'href="#headline-main_table"' in page
    assert page.count('id="headline-main_table"') == 1


def test_headline_without_clusters(tmp_path: Path) -> None:
    row = make_row(values={COARSE_TEST: 0.9})
    text = text_of(report(make_workdir(tmp_path, [row])))
    assert "Trained on mod:5; cluster-and-linear-probe or its ceiling was not measured." in text
    assert "Clusters against the fine classes" not in text


def test_a_view_that_the_report_does_not_know_is_shown_by_its_name(tmp_path: Path) -> None:
    row = changed(make_row(accuracy=0.8), {clp("umap"): 0.6})
    head, line = lines_of(report(make_workdir(tmp_path, [row])), "main_table")
    assert "CLP: raw features test (oracle matching) CLP: umap test (oracle matching)" in head
    assert "80.0 81.0 60.0 –" in line


def test_seeds_are_shown_as_mean_and_sample_deviation(tmp_path: Path) -> None:
    rows = [make_row(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.70, 0.80, 0.90))]
    text = text_of(report(make_workdir(tmp_path, rows)))
    assert "80.0 ± 10.0" in text
    assert "± is the sample standard deviation over n seeds." in text
    assert "n = 3, ± over seeds" in text


def test_one_seed_has_no_spread_and_the_page_says_so(tmp_path: Path) -> None:
    text = text_of(report(make_workdir(tmp_path, [make_row()])))
    assert not re.search(r"\d ± \d", text)
    assert "n = 1, no spread" in text
    assert "spread over seeds there is one seed (n = 1)" in text


def test_single_members_are_shown_by_name(tmp_path: Path) -> None:
    page = report(make_workdir(tmp_path, [make_row(), make_row("random_init", epoch=0)]))
    _, member, control = lines_of(page, "main_table")
    assert member.startswith("mod:5/lr=0.1/wd=0.0005/seed=0 trained on coarse labels 1 20")
    assert control.startswith("random initialisation 1 0")  # what it is is said once


def collapse(value: float) -> dict[Quantity, float | None]:
    """A number of its own at each split and level: value + 1 for coarse, + 2 for fine, + 3 inside, + 10 for test."""
    levels = {"coarse": ("nc1", 1), "fine": ("nc1", 2), "within": ("silhouette", 3)}
    return {
        Quantity(metric, split, level): value + plus + more
        for split, more in (("train", 0), ("test", 10))
        for level, (metric, plus) in levels.items()
    } | {Quantity("nc3", "train", "coarse"): None}


def test_collapse_is_shown_at_both_levels_over_seeds(tmp_path: Path) -> None:
    rows = [changed(make_row(seed=seed), collapse(100.0 * seed)) for seed in (1, 2)]
    page = report(make_workdir(tmp_path, [*rows, make_row("raw_pixels", values={clp(): 0.5})]))
    head, coarse = lines_of(page, "collapse_coarse")
    assert head == "Network n seeds NC1 train (test) NC3 train (test)"
    assert coarse == "mod:5 trained on coarse labels 2 151 ± 71 161 ± 71 – –"
    assert lines_of(page, "collapse_fine")[1] == "mod:5 trained on coarse labels 2 152 ± 71 162 ± 71 – –"
    head, inside = lines_of(page, "collapse_within")
    assert head == "Network n seeds silhouette train (test)"
    assert inside == "mod:5 trained on coarse labels 2 153 ± 71 163 ± 71"
    assert "over resamples of the examples" not in text_of(page)
    assert 'title="NC1, tr(S_W S_B^+) / K; 0 or more, lower is better"' in page


def test_spread_of_one_network_is_that_of_its_resamples(tmp_path: Path) -> None:
    row = changed(make_row(bootstrap=20), collapse(0.0), stds=collapse(0.5))
    page = report(make_workdir(tmp_path, [row]))
    assert lines_of(page, "collapse_coarse")[1].endswith("1 1.0 ± 1.5 11 ± 12 – –")
    assert "over resamples of the examples" in text_of(page)
    assert "deviation over seeds" not in text_of(page)


def test_results_without_metrics_of_collapse_are_shown_without_the_table(tmp_path: Path) -> None:
    page = report(make_workdir(tmp_path, [make_row(values={clp(): 0.5})]))
    assert "table-collapse" not in page
    assert "Fine classes inside super-classes" not in page


def test_missing_and_nan_numbers_are_dashes(tmp_path: Path) -> None:
    bare = make_row("raw_pixels", values={clp(): None}, epoch=None, class_distances=())
    workdir = make_workdir(tmp_path, [make_row(), bare, changed(make_row("fine"), {COARSE_TEST: 0.123456789})])
    path = workdir / "results" / "evaluation.json"
    text = path.read_text()
    assert text.count("0.123456789") == 1
    path.write_text(text.replace("0.123456789", "NaN"))
    page = report(workdir)
    assert "nan" not in text_of(page).lower().split()
    assert "None" not in text_of(page)
    line = next(line for line in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if "raw pixels" in line)
    assert re.findall(r"<td[^>]*>([^<]*)", line)[1:] == ["–"] * 6  # behind n


def test_every_kind_of_row_and_no_trained_network(tmp_path: Path) -> None:
    rows = [make_row(kind) for kind in ("raw_pixels", "random_init", "shuffled", "fine", "another")]
    text = text_of(report(make_workdir(tmp_path, rows)))
    assert "no network trained on coarse labels" in text
    for words in ("raw pixels", "random initialisation", "shuffled labels", "trained on fine labels", "another"):
        assert words in text


def test_layers_of_one_network_are_lines_of_their_own(tmp_path: Path) -> None:
    rows = [make_row(layer=layer, accuracy=accuracy) for layer, accuracy in (("block_1", 0.6), ("features", 0.8))]
    page = report(make_workdir(tmp_path, rows, config=RAW))
    _, first, last = lines_of(page, "main_table")
    assert "seed=0, layer block_1" in first
    assert "seed=0, layer features" in last
    assert "recover the fine classes at 80.0 %" in text_of(page)  # the input of the last layer


def test_facts_and_notes(tmp_path: Path) -> None:
    run = {
        "dataset": "",
        "command": "ncjax demo",
        "device": "2 x cpu",
        "versions": {"jax": "0.6.0"},
        "wall_secs": {"compile": 9.96, "train": 192.0, "evaluate": 3725.0, "probe": None},
    }
    text = text_of(report(make_workdir(tmp_path, [make_row()], notes=["Raw pixels cluster at 97 %."], **run)))
    assert "Command ncjax demo" in text
    assert "Data –" in text
    assert "compile 10.0 s, train 3 min 12 s, evaluate 1 h 02 min, probe –" in text
    assert "jax 0.6.0" in text
    assert "Raw pixels cluster at 97 %." in text


def test_config_comes_from_config_json_when_the_results_hold_none(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    write_run_file(workdir, {"seeds": 8})
    assert '"seeds": 8' in text_of(report(workdir))


def test_failed_member_is_named_with_its_step(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    write_metrics(workdir, [make_record(step, members=3, failed=[2] if step > 10 else []) for step in (10, 20, 30)])
    assert "Not a number: member m2 by step 20. These members" in text_of(report(workdir))


def test_failed_member_of_an_older_log_has_the_name_of_its_row(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row(seed=seed) for seed in (0, 1)])
    lines = ['{"step": 10, "epoch": 1, "wall_secs": 1.0, "train_loss": [0.5, null]}\n']
    (workdir / "metrics.jsonl").write_text("".join(lines))
    assert "member mod:5/lr=0.1/wd=0.0005/seed=1 by step 10" in text_of(report(workdir))


def test_rewritten_steps_count_once_and_many_members_draw_a_band(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    failed = make_record(20, 12, failed=range(12))
    write_metrics(workdir, [make_record(10, 12), failed, make_record(20, 12), make_record(30, 12)])
    page = report(workdir)
    assert "Not a number" not in text_of(page)
    assert "training_curves" in page


def test_reading_a_work_directory_changes_nothing_but_the_page(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    write_metrics(workdir, [make_record(10, 1)])
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    report(workdir)
    after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    del after[workdir / "report.html"]
    assert after == before
