# SPDX-License-Identifier: Apache-2.0
"""What is drawn of stages: shares, rates and times left, when a line is due, and bars that fit the terminal."""

import doctest
import io

import pytest

from ncjax.cli import progress
from ncjax.cli.progress import Bars, Going, Lines, duration, end_text, progress_text, show_progress
from ncjax.events import Event, listening, stage


def going(done: int, total: int, unit: str = "", *, first: int = 0) -> Going:
    """A stage that has gone on for ten seconds."""
    return Going(Event("train", done, total, "epoch 1", unit), first, 100.0)


def test_examples_in_docstrings():
    found = doctest.testmod(progress)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (going(0, 0), "10 s"),
        (going(0, 40), "0%, 10 s"),
        (going(10, 40), "25%, about 30 s left"),
        (going(10, 40, "images"), "25%, 1.0 images/s, 30 s left"),
        (going(30, 40, "images", first=20), "75%, 1.0 images/s, 10 s left"),  # what an earlier process did has no rate
        (going(40, 40, "images"), "100%, 4.0 images/s"),
        (going(123_456, 0, "points"), "12,346 points/s"),
    ],
)
def test_share_rate_and_time_left(stage, text):
    assert progress_text(stage, 110.0) == text


def test_the_end_says_how_long_it_took():
    assert end_text(going(40, 40, "images", first=20), 110.0) == "10 s, 2.0 images/s"
    assert end_text(going(0, 0), 110.4) == "10 s"


@pytest.mark.parametrize(
    ("secs", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.99, "10 s"),
        (59.7, "1 min 00 s"),
        (119.9, "2 min 00 s"),
        (7199.0, "2 h 00 min"),
    ],
)
def test_durations_carry_what_they_round_up_to(secs, text):
    assert duration(secs) == text


def test_commands_that_are_over_at_once_say_nothing(capsys):
    with show_progress(), stage("load data", "digits"):
        pass
    assert capsys.readouterr().err == ""


@pytest.fixture
def lines():
    """Lines of every stage that begins or ends, without waiting."""
    drawer = Lines(held_secs=0.0)
    with listening(drawer.show):
        yield drawer
    drawer.close()


def test_lines_when_a_stage_begins_and_ends(lines, capsys):
    with stage("load data", "digits"):
        pass
    for epoch in range(3):
        with stage("extract features", f"epoch {epoch}"):
            pass
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "[load data] digits"
    assert said[1].startswith("[load data] done in ")
    assert [line for line in said if "extract" in line and "done" not in line] == ["[extract features] epoch 0"]
    assert sum("[extract features] done in" in line for line in said) == 1  # the others were as short


def test_a_stage_that_fails_has_no_end(lines, capsys):
    def fail() -> None:
        with stage("load data", "digits"):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert capsys.readouterr().err == "[load data] digits\n"


def test_quiet_draws_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "Lines", lambda: pytest.fail("it draws"))
    with show_progress(quiet=True), stage("load data", "digits"):
        pass
    assert capsys.readouterr().err == ""


def test_a_stage_that_goes_on_has_a_line_now_and_then_at_growing_distances(lines, capsys):
    began = 1e9  # not before the thread of the lines looks at the clock
    lines.stages.going["train"] = Going(Event("train", 10, 40, "epoch 1", "images"), 0, began)
    for secs in range(150):
        lines._say_what_is_due(began + secs)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "[train] 25%, 1.0 images/s, 30 s left, epoch 1"
    assert len(said) == 5  # after 10, 20, 40, 80 s, then every minute


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_bars_fit_the_terminal(columns):
    from rich.console import Console

    bars = Bars()
    name = "epoch 123/200, loss 0.123, 3 of 8 members diverged"
    for event in (Event("train with PyTorch", 5, 9, name, "images"), Event("compile", 0, 0, "the training step")):
        bars.stages.take(event)
    console = Console(width=columns, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(bars._bars())
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith("train with") or columns < 80
