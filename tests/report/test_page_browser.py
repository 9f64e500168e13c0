# SPDX-License-Identifier: Apache-2.0
"""Pages in a headless Chromium: nothing is requested, controls change what is drawn, an accessibility checker agrees.

Needs Playwright (`pip install playwright`), a Chromium (Debian's package, or that which CHROMIUM names), and for one
test axe-core (`npm install --prefix build axe-core`, or the file that AXE names). `pytest -m browser` runs these tests.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ncjax.evaluation.store import write_evaluation
from ncjax.report import write_report
from ncjax.results import join
from tests.report.rows import make_evaluation, make_record, make_row, write_metrics
from tests.report.test_examples import NAMES, make_full
from tests.report.test_theory import make_sweep

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
EVIL = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
WIDTHS = (390, 1280, 1920)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
AXE = Path(os.environ.get("AXE", ROOT / "build" / "node_modules" / "axe-core" / "axe.min.js"))


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one with CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def distances(scale: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(scale * (1 + (i + j) % 3) for j in range(4)) for i in range(4))


def make_whole(folder: Path) -> Path:
    """A run with epochs, seeds, a sweep, controls, images and a class whose name is hostile."""
    full, owner = make_full(), (0, 1, 0, 1)
    rows = [replace(row, test_distances=distances(3.0), class_distances=distances(1.0)) for row in full.rows]
    early = [make_row(seed=s, epoch=5, super_class=owner, class_distances=distances(7.0)) for s in (0, 1)]
    other = [make_row(seed=s, lr=0.2, accuracy=0.7 + s / 50, super_class=owner) for s in (0, 1)]
    controls = [make_row("random_init", epoch=0, accuracy=0.4, super_class=owner, class_distances=distances(9.0))]
    controls += [make_row("raw_pixels", epoch=None, accuracy=0.3, super_class=owner)]
    names = (EVIL, *NAMES[1:])
    config = {"evaluate": {"headline": "raw"}}
    rest = make_evaluation([*early, *other, *controls], class_names=names, config=config)
    whole = join([replace(full, rows=tuple(rows)), rest])
    provenance = replace(full.provenance, name=EVIL, class_names=names, command="ncjax run demo")
    write_evaluation(folder, replace(whole, provenance=provenance))
    write_metrics(folder, [make_record(step, members=2) for step in (10, 20, 30)])
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    one, theory = make_whole(folder / "one"), make_sweep(folder / "theory")
    write_report(one), write_report(theory), write_report([one, one], folder / "both.html")
    return {"run": one / "report.html", "theory": theory / "report.html", "both": folder / "both.html"}


@pytest.fixture
def visit(browser, pages) -> Iterator:
    """Opens a page; at the end nothing was requested, no error was logged, and no hostile name ran."""
    contexts, faults, requests = [], [], []

    def open_page(name: str, width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(pages[name].as_uri())
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        return page

    yield open_page
    hurt = [context.pages[0].evaluate("window.hurt") for context in contexts]
    for context in contexts:
        context.close()
    assert faults == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert sum(url.startswith("file:") for url in requests) == len(contexts)
    assert not any(hurt)


def drawn(page, figure: str) -> str:
    return page.locator(f"figure[data-chart={figure}] .chart svg").inner_html()


@pytest.mark.parametrize("name", ["run", "theory", "both"])
@pytest.mark.parametrize("width", WIDTHS)
def test_charts_are_drawn_and_nothing_is_wider_than_the_page(visit, name, width) -> None:
    page = visit(name, width)
    figures = page.locator("figure[data-chart]")
    assert figures.count() >= 2
    for place in range(figures.count()):
        assert figures.nth(place).get_attribute("data-drawn") == "yes"
        box = figures.nth(place).locator(".chart svg").bounding_box()
        assert box["width"] > 150
        assert box["x"] + box["width"] <= width
        scale = box["width"] / float(figures.nth(place).locator(".chart svg").get_attribute("width"))
        assert scale > 0.75  # letters of 11 pixels stay legible
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_slider_draws_another_epoch_also_by_keyboard(visit) -> None:
    page = visit("run")
    slider = page.locator("figure[data-chart=class_distances] input[type=range]")
    pictures = [drawn(page, "class_distances")]
    assert "epoch 20, train split" in pictures[0]
    for key, words in (("ArrowLeft", "epoch 5, train split"), ("ArrowLeft", "epoch 0, train split")):
        slider.focus()
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        pictures.append(drawn(page, "class_distances"))
        assert words in pictures[-1]
    assert len(set(pictures)) == 3


def test_switches_of_split_view_and_colour_change_what_is_drawn(visit) -> None:
    page = visit("run")
    for figure, choice in (("class_distances", "test"), ("confusion", "train"), ("embedding", "cluster")):
        before = drawn(page, figure)
        page.locator(f"figure[data-chart={figure}]").get_by_label(choice, exact=True).check()
        page.wait_for_timeout(300)
        assert drawn(page, figure) != before, figure
    before = drawn(page, "confusion")
    page.locator("figure[data-chart=confusion] select").select_option("t-SNE")
    page.wait_for_timeout(300)
    assert "t-SNE, train split" in drawn(page, "confusion")
    assert drawn(page, "confusion") != before


def test_hovering_a_point_shows_its_image(visit) -> None:
    page = visit("run")
    page.locator("figure[data-chart=embedding] .chart .mark-symbol.role-mark path").first.hover(force=True)
    image = page.locator("#vg-tooltip-element img")
    image.wait_for()
    assert image.get_attribute("src").startswith("data:image/")
    assert image.evaluate("one => one.naturalWidth") == 8
    assert "cluster" in page.locator("#vg-tooltip-element").inner_text()


def test_links_give_files(visit, tmp_path) -> None:
    page = visit("run")
    for kind, start in (("SVG", b"<svg"), ("PDF", b"%PDF-"), ("CSV", b"network,measure,mean")):
        with page.expect_download() as download:
            page.locator("figure[data-chart=accuracies]").get_by_role("link", name=kind).click()
        assert download.value.suggested_filename == f"accuracies.{kind.lower()}"
        assert Path(download.value.path()).read_bytes().startswith(start)


def test_tables_sort_and_fold(visit) -> None:
    page = visit("run")
    table = page.locator("#table-grid")

    def rates() -> list[str]:
        return table.locator("tbody tr td:nth-of-type(1)").all_inner_texts()

    first = rates()
    table.get_by_role("button", name="lr", exact=True).click()
    assert rates() == sorted(first, key=float, reverse=True)
    table.get_by_role("button", name="lr", exact=True).click()
    assert rates() == sorted(first, key=float)
    assert table.locator("th[aria-sort=ascending]").count() == 1
    main = page.locator("#table-main_table")
    button = main.get_by_role("button", name="NC1", exact=True)
    assert main.get_by_text("NC1 fine").is_visible()
    button.click()
    assert button.get_attribute("aria-expanded") == "false"
    assert not main.get_by_text("NC1 fine").is_visible()
    button.click()
    assert main.get_by_text("NC1 fine").is_visible()


def test_a_phone_gets_folded_columns_and_a_hint_where_a_table_scrolls(visit) -> None:
    page = visit("run", 390)
    assert page.locator("#table-main_table button[aria-expanded=false]").count() > 0
    for table in page.locator("table[id]").all():
        place = table.locator("xpath=..")
        wider = place.evaluate("one => one.scrollWidth > one.clientWidth + 1")
        assert place.locator("xpath=preceding-sibling::p[1]").is_visible() == wider


def test_hostile_names_stand_as_text(visit) -> None:
    page = visit("run")
    assert EVIL in page.locator("h1").inner_text()
    assert page.locator("h1 script, h1 img").count() == 0
    page.locator("figure[data-chart=class_distances] .mark-rect.role-mark path").first.hover(force=True)
    page.locator("#vg-tooltip-element.visible").wait_for()
    assert page.locator("#vg-tooltip-element script, #vg-tooltip-element img").count() == 0


def test_a_page_prints_in_black_on_white_without_controls(visit) -> None:
    page = visit("run", color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)" != dark
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF-")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "theory", "both"])
def test_an_accessibility_checker_finds_nothing_serious(browser, pages, name, scheme) -> None:
    if not AXE.is_file():
        pytest.skip(f"there is no {AXE.name}: npm install --prefix build axe-core, or name the file with AXE")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(pages[name].as_uri())
    page.wait_for_function("document.documentElement.dataset.ready === 'yes'", timeout=60_000)
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    context.close()
    serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []
