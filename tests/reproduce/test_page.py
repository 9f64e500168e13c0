# SPDX-License-Identifier: Apache-2.0
"""Pages whose numbers are read from results: what a template may ask, and that a changed number is seen."""

import json

import pytest

from ncjax.errors import UserError
from ncjax.report import run_summary
from ncjax.reproduce.page import outdated, render, write_page
from tests.report.rows import changed, clp, make_evaluation, make_row, write_run_file

TEMPLATE = """# Page

CLP {{ value("toy", "clp", view="raw") | f1 }} %, at epoch 10 {{ value("toy", "clp", view="raw", epoch=10) | f1 }} %,
NC1 {{ value("toy", "nc1", split="train", level="coarse") | f2 }}; `{{ command("toy") }}`.

{{ tables("toy") }}

{{ recovery("toy") }}

{{ figure("recovery", "toy") }}

{{ costs() }}
{{ recipes("fine_recipe", "gpu") }}
"""


@pytest.fixture
def template(tmp_path):
    folder = tmp_path / "logs" / "toy"
    (folder / "results").mkdir(parents=True)
    rows = [make_row(seed=0, accuracy=0.8), make_row(seed=1, accuracy=0.843), make_row(epoch=10, accuracy=0.5)]
    rows = [changed(row, {clp("normalised"): row.value("clp", view="raw")}) for row in rows]
    (folder / "results" / "evaluation.json").write_text(make_evaluation(rows).to_json())
    write_run_file(folder, {})
    path = tmp_path / "page.md.j2"
    path.write_text(TEMPLATE)
    return path


def test_a_page_holds_what_the_results_say(template):
    text = render(template).text
    assert "CLP 82.2 %, at epoch 10 50.0 %,\nNC1 0.01; `ncjax train`." in text
    assert run_summary(template.parent / "logs" / "toy") in text
    assert "](figures/recovery.svg)" in text
    assert "| coarse_cifar10 |" in text
    assert "Not run yet." in text
    assert text.endswith("\n")


def test_what_was_written_is_up_to_date(template):
    assert set(outdated(template)) == {"page.md", "recovery.json", "recovery.svg"}
    assert write_page(template) == template.parent / "page.md"
    assert outdated(template) == ()


def test_a_changed_raw_number_is_seen(template):
    write_page(template)
    path = template.parent / "logs" / "toy" / "results" / "evaluation.json"
    content = json.loads(path.read_text())
    for one in content["rows"][0]["measurements"]:
        if one["metric"] == "clp":
            one["value"] += 0.01
    path.write_text(json.dumps(content))
    assert set(outdated(template)) == {"page.md", "recovery.json", "recovery.svg"}


@pytest.mark.parametrize("file", ["page.md", "figures/recovery.json", "figures/recovery.svg"])
def test_a_page_or_figure_that_was_edited_is_seen(template, file):
    write_page(template)
    path = template.parent / file
    path.write_text(path.read_text().replace("82.2", "92.2").replace("84.3", "94.3").replace("svg", "gvs", 1)
                    if file != "figures/recovery.svg" else "<svg/>")  # fmt: skip
    assert outdated(template) == (path.name,)


@pytest.mark.parametrize(("asked", "message"), [
    ('{{ value("toy", "clp", view="tsne") }}', "there is no toy: clp of trained .* at epoch 20, view tsne"),
    ('{{ value("other", "clp") }}', "cannot read .*other"),
    ("{{ unknown }}", "'unknown' is undefined"),
    ("{{ value(", "page.md.j2: "),
    ('{{ figure("collapse", "toy") }}', "figure collapse has nothing to show of toy in the view normalised"),
])  # fmt: skip
def test_what_there_is_not_is_refused(template, asked, message):
    template.write_text(asked)
    with pytest.raises(UserError, match=message):
        render(template)


def test_numbers_of_several_settings_are_refused(template):
    path = template.parent / "logs" / "toy" / "results" / "evaluation.json"
    path.write_text(make_evaluation([make_row(), make_row(lr=0.01)]).to_json())
    template.write_text('{{ value("toy", "clp", view="raw") }}')
    with pytest.raises(UserError, match="several settings have toy: clp"):
        render(template)


def test_a_missing_template_is_refused(tmp_path):
    with pytest.raises(UserError, match="no template of a page at"):
        render(tmp_path / "page.md.j2")
