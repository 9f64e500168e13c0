# SPDX-License-Identifier: Apache-2.0
"""The page of a work directory: its numbers, its gaps, its escapes and its errors."""

import html.parser
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from ncjax.errors import UserError
from ncjax.report import summary, write_report
from ncjax.report.groups import Group, group_rows, labels_of, last_epochs, number, percent


def make_row(kind: str = "trained", seed: int = 0, clp: float = 0.8, **fields: Any) -> dict[str, Any]:
    scores = dict.fromkeys(("cluster_accuracy_train", "cluster_accuracy_test", "ari", "nmi", "inertia"), 0.5)
    row = {
        "name": "mod:5",
        "kind": kind,
        "epoch": 20,
        "member": seed,
        "seed": seed,
        "lr": 0.1,
        "weight_decay": 5e-4,
        "label_map": "mod:5",
        "coarse_train_accuracy": 0.99,
        "coarse_test_accuracy": 0.9,
        "probe_train_accuracy": 0.98,
        "probe_test_accuracy": 0.85,
        "nc1_coarse_train": 0.0123,
        "nc1_coarse_test": 0.2,
        "nc1_fine_train": 1.5,
        "nc1_fine_test": 2.5,
        "distance_same_class": 1.0,
        "distance_merged_classes": 2.0,
        "distance_other_classes": 9.0,
        "class_distances": [[1.0, 2.0], [2.0, 1.0]],
        "clp": {"raw": {"test_accuracy": clp, "test_accuracy_oracle": clp + 0.01} | scores, "tsne": None},
    }
    return row | fields


def make_workdir(folder: Path, rows: list[dict[str, Any]], run: dict[str, Any] | None = None, **extra: Any) -> Path:
    (folder / "results").mkdir(parents=True)
    content = {"run": run if run is not None else {"name": "toy", "dataset": "digits"}, "rows": rows, "notes": []}
    (folder / "results" / "evaluation.json").write_text(json.dumps(content | extra))
    return folder


def write_metrics(folder: Path, records: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def make_record(step: int, members: int) -> dict[str, Any]:
    curves = {f"{split}_{what}": [0.5] * members for split in ("train", "test") for what in ("loss", "accuracy")}
    return {"step": step, "epoch": step / 10, "lr": [0.1] * members} | curves


def text_of(page: str) -> str:
    """The words that a reader sees, with single spaces."""
    page = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def report(workdir: Path) -> str:
    path = write_report(workdir)
    assert path == workdir / "report.html"
    return path.read_text(encoding="utf-8")


def test_headline_states_clp_ceiling_and_controls(tmp_path: Path) -> None:
    rows = [make_row(clp=0.8), make_row("random_init", clp=0.4), make_row("raw_pixels", clp=0.3)]
    text = text_of(report(make_workdir(tmp_path, rows)))
    assert "recover the fine classes at 80.0 % on the test set" in text
    assert "5.0 points below the 85.0 % of a probe" in text
    assert "random initialisation 40.0 %, raw pixels 30.0 %" in text


def test_headline_is_of_the_setting_best_on_coarse_labels(tmp_path: Path) -> None:
    rows = [make_row(lr=0.1, clp=0.9, coarse_test_accuracy=0.7), make_row(lr=0.01, clp=0.8, coarse_test_accuracy=0.8)]
    page = report(make_workdir(tmp_path, rows))
    assert "recover the fine classes at 80.0 %" in text_of(page)
    marked = re.search(r'<tr class="main">.*?</tr>', page, re.DOTALL)
    assert marked is not None
    assert "lr 0.01" in marked[0]


def test_seeds_are_shown_as_mean_and_sample_deviation(tmp_path: Path) -> None:
    rows = [make_row(seed=seed, clp=clp) for seed, clp in enumerate((0.70, 0.80, 0.90))]
    text = text_of(report(make_workdir(tmp_path, rows)))
    assert "80.0 ± 10.0" in text
    assert "Mean ± sample standard deviation over seeds." in text


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    assert "±" not in text_of(report(make_workdir(tmp_path, [make_row()])))


def make_collapse(value: float) -> dict[str, Any]:
    """A number of its own at each split, level and measure: value + 1 for coarse, + 2 for fine, + 10 for test."""
    names = ("nc1", "cdnv", "nc2_equinorm", "nc2_angle", "effective_rank_means", "effective_rank_within")
    inside = ("explained_variance", "silhouette", "silhouette_cosine")
    inside += ("distance_same_class", "distance_merged_classes", "distance_other_classes")
    levels = {"coarse": (names, 1), "fine": (names, 2), "within": (inside, 3)}
    return {
        split: {level: dict.fromkeys(of, value + plus + more) | {"nc3": None} for level, (of, plus) in levels.items()}
        for split, more in (("train", 0), ("test", 10))
    }


def lines_under(page: str, title: str) -> list[str]:
    table = page.split(f"<h2>{title}</h2>")[1].split("</table>")[0]
    return [" ".join(re.sub(r"<[^>]+>", " ", line).split()) for line in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]


def test_collapse_is_shown_at_both_levels_over_seeds(tmp_path: Path) -> None:
    rows = [make_row(seed=seed, collapse=make_collapse(100 * seed)) for seed in (1, 2)]
    page = report(make_workdir(tmp_path, [*rows, make_row("raw_pixels", collapse={})]))
    head, coarse, fine = lines_under(page, "Collapse")
    assert "NC1 train (test) CDNV train (test)" in head
    assert coarse.startswith("mod:5 trained on coarse labels coarse 151 ± 71 161 ± 71 151 ± 71 161 ± 71")
    assert fine.startswith("mod:5 trained on coarse labels fine 152 ± 71 162 ± 71")
    assert "– –" in coarse  # NC3
    _, inside = lines_under(page, "Fine classes inside super-classes")
    assert inside == "mod:5 trained on coarse labels " + " ".join(["153 ± 71 163 ± 71"] * 6)
    assert "over resamples of the examples" not in text_of(page)


def test_spread_of_one_network_is_that_of_its_resamples(tmp_path: Path) -> None:
    row = make_row(collapse=make_collapse(0), collapse_std=make_collapse(0.5))
    page = report(make_workdir(tmp_path, [row]))
    assert "coarse 1 ± 1.5 11 ± 12 1 ± 1.5" in lines_under(page, "Collapse")[1]
    assert "over resamples of the examples" in text_of(page)
    assert "over seeds" not in text_of(page)


def test_results_without_the_table_of_collapse_are_shown_without_it(tmp_path: Path) -> None:
    assert "<h2>Collapse</h2>" not in report(make_workdir(tmp_path, [make_row()]))


def test_missing_and_nan_numbers_are_dashes(tmp_path: Path) -> None:
    bare = {key: None for key in make_row() if key not in ("kind", "name")}
    rows = [make_row(), make_row("raw_pixels") | bare, make_row("fine", coarse_test_accuracy=math.nan)]
    page = report(make_workdir(tmp_path, rows))
    assert "nan" not in text_of(page).lower().split()
    assert "None" not in text_of(page)
    line = next(line for line in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if "raw pixels" in line)
    assert set(re.findall(r"<td>([^<]*)", line)) == {"–"}


def test_every_kind_of_row_and_no_trained_network(tmp_path: Path) -> None:
    rows = [make_row(kind) for kind in ("raw_pixels", "random_init", "shuffled", "fine", "another")]
    text = text_of(report(make_workdir(tmp_path, rows)))
    assert "no network trained on coarse labels" in text
    for words in ("raw pixels", "random initialisation", "shuffled labels", "trained on fine labels", "another"):
        assert words in text


def test_page_is_self_contained_and_well_formed(tmp_path: Path) -> None:
    rows = [make_row(), make_row(epoch=5), make_row("random_init", epoch=0), make_row("fine", label_map="fine")]
    workdir = make_workdir(tmp_path, rows)
    write_metrics(workdir, [make_record(step, members=2) for step in (10, 20)])
    page = report(workdir)
    assert page.count("<svg") == 4
    assert page.count("</svg>") == 4
    for reference in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", page):
        assert "".join(reference).startswith(("#", "data:")), reference
    for forbidden in ("@import", "<script", "<link", "<!DOCTYPE svg"):
        assert forbidden not in page
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []


class _Balance(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    row = make_row(name=evil, label_map=evil)
    run = {"name": evil, "dataset": evil, "command": evil, "class_names": [evil, evil], "config": {"a": evil}}
    page = report(make_workdir(tmp_path, [row], run, notes=[evil]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_facts_and_notes(tmp_path: Path) -> None:
    run = {
        "name": "toy",
        "command": "ncjax demo",
        "device": "2 x cpu",
        "versions": {"jax": "0.6.0"},
        "wall_secs": {"compile": 9.96, "train": 192.0, "evaluate": 3725, "probe": None},
    }
    text = text_of(report(make_workdir(tmp_path, [make_row()], run, notes=["Raw pixels cluster at 97 %."])))
    assert "Command ncjax demo" in text
    assert "Data –" in text
    assert "compile 10.0 s, train 3 min 12 s, evaluate 1 h 02 min, probe –" in text
    assert "jax 0.6.0" in text
    assert "Raw pixels cluster at 97 %." in text


def test_config_comes_from_config_json_when_the_results_hold_none(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    (workdir / "config.json").write_text('{"seeds": 8}')
    assert '"seeds": 8' in text_of(report(workdir))


def test_failed_member_is_named_with_its_step(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    records = [make_record(step, members=3) for step in (10, 20, 30)]
    for record in records[1:]:
        record["train_loss"][2] = math.nan
    write_metrics(workdir, records)
    assert "member 2 by step 20" in text_of(report(workdir))


def test_rewritten_steps_count_once_and_many_members_draw_a_band(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    failed = make_record(20, members=12)
    failed["train_loss"] = [math.nan] * 12
    write_metrics(workdir, [make_record(10, 12), failed, make_record(20, 12), make_record(30, 12)])
    page = report(workdir)
    assert "Not a number" not in page
    assert "mean and range" in page


def test_a_sweep_of_many_label_maps_is_a_table_without_the_dot_figure(tmp_path: Path) -> None:
    rows = [make_row(label_map=f"random:5:{seed}", class_distances=None) for seed in range(30)]
    page = report(make_workdir(tmp_path, rows))
    assert "<svg" not in page
    assert "random:5:29" in page


def test_groups_gather_seeds_and_keep_settings_apart() -> None:
    rows = [make_row(lr=lr, seed=seed) for lr in (0.1, 0.01) for seed in (0, 1)]
    rows += [make_row("random_init", lr=lr, epoch=0) for lr in (0.1, 0.01)]
    groups = group_rows(rows)
    assert [(group.kind, len(group.rows)) for group in groups] == [("trained", 2), ("trained", 2), ("random_init", 2)]
    assert labels_of(groups) == ("mod:5, lr 0.1, wd 0.0005", "mod:5, lr 0.01, wd 0.0005", "mod:5")


def test_last_epochs_keeps_the_latest_of_each_setting() -> None:
    groups = group_rows([make_row(epoch=epoch) for epoch in (20, 5, 10)])
    assert [group.epoch for group in last_epochs(groups)] == [20]


def test_group_values_skip_what_is_no_finite_number() -> None:
    rows = ({"clp": {"raw": {"ari": 0.25}}}, {"clp": {"raw": None}}, {"clp": None}, {"clp": {"raw": {"ari": math.inf}}})
    group = Group("trained", "mod:5", None, None, None, rows)
    assert group.values("clp", "raw", "ari") == (0.25,)
    assert group.mean("clp", "tsne", "ari") is None


def test_formats() -> None:
    assert percent([]) == number([]) == "–"
    assert percent([0.8444]) == "84.4"
    assert percent([0.5, 0.7]) == "60.0 ± 14.1"
    assert number([0.0012345]) == "0.00123"
    assert number([1.0, 3.0]) == "2 ± 1.4"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing: run `ncjax evaluate"),
        ("", "is not valid JSON"),
        ('{"run": {', "is not valid JSON"),
        ("[]", "expected an object"),
        ('{"rows": []}', '"run" must be an object'),
        ('{"run": {}, "rows": []}', "at least one row"),
        ('{"run": {}, "rows": [{"kind": "trained"}], "notes": [1]}', '"notes" must be a list of strings'),
        ('{"run": {}, "rows": [3]}', "row 0: expected an object"),
        ('{"run": {}, "rows": [{"kind": "fine"}, {"name": "mod:5"}]}', 'row 1: "kind" must be a string'),
        ('{"run": {}, "rows": [{"kind": "fine", "name": 3}]}', '"name" must be a string or null'),
        ('{"run": {}, "rows": [{"kind": "fine", "epoch": "last"}]}', '"epoch" must be a number or null'),
        ('{"run": {}, "rows": [{"kind": "fine", "clp": []}]}', None),
        ('{"run": {}, "rows": [{"kind": "fine", "clp": [1]}]}', '"clp" must be an object'),
        ('{"run": {}, "rows": [{"kind": "fine", "clp": {"raw": {"ari": "high"}}}]}', '"clp.raw" must hold numbers'),
        ('{"run": {}, "rows": [{"kind": "fine", "class_distances": [[1, 2]]}]}', "must be a square list of lists"),
        ('{"run": {}, "rows": [{"kind": "fine", "class_distances": [1, 2]}]}', "must be a square list of lists"),
        ('{"run": {}, "rows": [{"kind": "fine", "collapse": {"train": 3}}]}', '"collapse" must hold numbers by split'),
        ('{"run": {}, "rows": [{"kind": "fine", "collapse_std": {"train": {"fine": {"nc1": "x"}}}}]}', "must hold num"),
    ],
)
def test_bad_evaluation_file_is_one_line_that_names_it(tmp_path: Path, content: str | None, words: str | None) -> None:
    path = tmp_path / "results" / "evaluation.json"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    if words is None:
        write_report(tmp_path)
        return
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        write_report(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"step": 2, "tr', "line 2 is not valid JSON"),
        ("metrics.jsonl", "[1]\n", "line 1: expected an object"),
        ("metrics.jsonl", '{"epoch": 1}\n', 'line 1: "step" must be a number'),
        ("metrics.jsonl", '{"step": 1, "train_loss": ["low"]}\n', "line 1: train_loss must list numbers"),
        ("config.json", "{", "is not valid JSON"),
        ("config.json", "3", "expected an object"),
    ],
)
def test_bad_run_files_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    workdir = make_workdir(tmp_path, [make_row()])
    (workdir / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        write_report(workdir)
    assert str(workdir / name) in str(caught.value)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_summary_holds_the_numbers_of_every_epoch_and_control(tmp_path: Path) -> None:
    rows = [make_row(seed=seed, clp=clp) for seed, clp in enumerate((0.7, 0.9))]
    rows += [make_row(epoch=10, clp=0.6), make_row("raw_pixels", name="raw pixels", label_map=None, epoch=None)]
    main, clusters = (table.splitlines() for table in summary(make_workdir(tmp_path, rows)).split("\n\n"))
    assert cells(main[0])[:6] == ["network", "seeds", "epoch", "coarse test", "coarse train", "true-label probe"]
    assert cells(main[0])[6:] == ["CLP: raw features", "NC1 coarse", "NC1 fine"]
    assert [cells(line)[:3] for line in main[2:]] == [
        ["trained on coarse labels (mod:5)", "2", "20"],
        ["trained on coarse labels (mod:5)", "1", "10"],
        ["raw pixels", "1", "–"],
    ]
    expected = ["90.0 ± 0.0", "99.0 ± 0.0", "85.0 ± 0.0", "80.0 ± 14.1", "0.0123 ± 0", "1.5 ± 0"]
    assert cells(main[2])[3:] == expected
    assert cells(clusters[0]) == ["network", "epoch", "clusters: raw features", "ARI: raw features"]
    assert cells(clusters[2])[2:] == ["50.0 ± 0.0", "0.500 ± 0.000"]
    assert {len(cells(line)) for line in main} == {9}
