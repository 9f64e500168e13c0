# SPDX-License-Identifier: Apache-2.0
"""The page with its pictures: self-contained, well-formed, with files behind its links; text from files is escaped."""

import base64
import html.parser
import re
from pathlib import Path

from ncjax.report import figures_of, write_figures
from tests.report.rows import make_record, make_row, make_workdir, write_metrics
from tests.report.test_page import report, text_of


class _Balance(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.names += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.names += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_self_contained_and_well_formed(tmp_path: Path) -> None:
    rows = [make_row(), make_row(epoch=5), make_row("random_init", epoch=0), make_row("fine", label_map="fine")]
    workdir = make_workdir(tmp_path, rows)
    write_metrics(workdir, [make_record(step, members=2) for step in (10, 20)])
    page = report(workdir)
    drawn = re.findall(r'<figure id="figure-(\w+)"', page)
    assert drawn == ["accuracies", "clp_over_epochs", "collapse_over_epochs", "class_distances", "training_curves"]
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # without Vega and what calls it
    assert own.count("<svg") == own.count("</svg>") == len(drawn)
    for reference in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", own):
        assert "".join(reference).strip("'\"").startswith(("#", "data:")), reference
    for forbidden in ("@import", "<script src", "<link", "<!DOCTYPE svg"):
        assert forbidden not in own
    assert "default-src 'none'" in own
    parser = _Balance()
    parser.feed(own)
    assert parser.open == []
    names = parser.names
    assert len(names) == len(set(names))
    assert all(target in names for target in re.findall(r'href="#([^"]+)"', own))
    assert len(page) < 10_000_000


def test_each_figure_has_files_and_the_command_that_makes_them(tmp_path: Path) -> None:
    page = report(make_workdir(tmp_path / "my run", [make_row()]))
    (pdf,) = re.findall(r'href="data:application/pdf;base64,([^"]+)" download="accuracies.pdf"', page)
    assert base64.b64decode(pdf).startswith(b"%PDF-")
    (numbers,) = re.findall(r'href="data:text/csv;base64,([^"]+)" download="accuracies.csv"', page)
    assert base64.b64decode(numbers).startswith(b"network,measure,mean")
    assert f"ncjax report '{tmp_path / 'my run'}' --figures figures" in text_of(page)
    figures = figures_of(tmp_path / "my run")
    for figure in figures.values():
        assert figure.chart.to_dict(validate=True)["$schema"]
    for path in write_figures(tuple(figures.values()), tmp_path / "figures"):
        assert path.stat().st_size > 100
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {f"{name}{suffix}" for name in figures for suffix in (".svg", ".pdf", ".csv", ".vl.json")} == names


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    row = make_row(name=evil, label_map=evil)
    run = {"name": evil, "dataset": evil, "command": evil, "class_names": (evil, evil), "config": {"a": evil}}
    page = report(make_workdir(tmp_path, [row], notes=[evil], **run))
    assert evil not in page
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "\\u003cscript>alert(1)\\u003c/script>" in page  # in the description of a chart


def test_a_sweep_of_many_label_maps_is_a_table_without_the_dot_figure(tmp_path: Path) -> None:
    rows = [make_row(label_map=f"random:5:{seed}", class_distances=()) for seed in range(30)]
    page = report(make_workdir(tmp_path, rows))
    assert "<svg" not in page
    assert "vegaEmbed=" not in page  # what draws charts is not there without one
    assert "random:5:29" in page


def test_names_of_classes_stand_beside_their_distances(tmp_path: Path) -> None:
    names = ("a heron", "a stork")
    page = report(make_workdir(tmp_path, [make_row()], class_names=names))
    assert all(page.count(f">{name}</text>") == 2 for name in names)
