# SPDX-License-Identifier: Apache-2.0
"""Figures show the numbers of their JSON, which are those of the results."""

import json
import xml.etree.ElementTree as ET

from ncjax.report.groups import Quantity
from ncjax.reproduce.figures import collapse_figure, recovery_figure
from tests.report.rows import make_evaluation, make_row

ROWS = [
    make_row(seed=0, accuracy=0.8),
    make_row(seed=1, accuracy=0.84),
    make_row(seed=0, accuracy=0.5, epoch=10),
    make_row("fine", label_map="fine", values={Quantity("accuracy", "test", "coarse"): 0.93}),
    make_row("raw_pixels", accuracy=0.3, member=None, epoch=None),
    make_row("shuffled", accuracy=0.1, label_map="shuffled:mod:5:0"),
]
RESULTS = {"a $b": make_evaluation(ROWS), "other": make_evaluation(ROWS[:1])}


def test_recovery_has_a_mark_for_every_seed_at_the_last_epoch():
    points = recovery_figure(RESULTS, "raw").points
    marks = {(point.results, point.what, point.seed): point.x for point in points}
    assert marks == {
        ("a $b", "CLP", 0): 80.0,
        ("a $b", "CLP", 1): 84.0,
        ("a $b", "fine-label network", 0): 93.0,
        ("a $b", "raw pixels", 0): 30.0,
        ("other", "CLP", 0): 80.0,
    }


def test_collapse_has_a_point_for_every_epoch():
    points = collapse_figure(RESULTS, "raw").points
    assert {(point.results, point.seed, point.epoch) for point in points} == {
        ("a $b", 0, 20), ("a $b", 1, 20), ("a $b", 0, 10), ("other", 0, 20),
    }  # fmt: skip
    assert {(point.x, point.y) for point in points} == {(0.0123, 50.0)}


def test_a_picture_holds_the_digest_of_its_numbers():
    for make in (recovery_figure, collapse_figure):
        drawing = make(RESULTS, "raw")
        picture = drawing.to_svg()
        assert ET.fromstring(picture).tag.endswith("svg")
        assert drawing.digest in picture
        assert "other" in picture
        assert json.loads(drawing.to_json())["title"] in picture.replace("&gt;", ">")
    assert recovery_figure(RESULTS, "raw").digest != recovery_figure({"other": RESULTS["other"]}, "raw").digest
