# SPDX-License-Identifier: Apache-2.0
"""What `ncjax status` prints."""

import pytest

from ncjax.cli.status import status_text
from ncjax.storage.metrics import Record
from ncjax.storage.status import Holder, PartStatus, RunStatus

NAMES = tuple(f"mod:5/lr=0.1/wd=5e-4/seed={seed}" for seed in range(3))


def part(names=NAMES, **changes):
    values = {
        "train_loss": {name: 0.5 + number for number, name in enumerate(names)},
        "train_accuracy": dict.fromkeys(names, 0.9),
        "test_accuracy": {name: 0.8 + 0.01 * number for number, name in enumerate(names)},
    }
    last = Record(step=50, epoch=5, wall_secs=10.0, values=values)
    whole = PartStatus(names, 5, 20, last, False, 40, 75.0, 30.0, ())
    return whole._replace(**changes)


def run(*parts, **changes):
    whole = RunStatus("mine", "ncjax run mine", Holder("process 7 on here", True), None, parts, False, None)
    return whole._replace(**changes)


def test_a_run_in_training():
    lines = status_text(run(part())).splitlines()
    assert lines[0] == "mine: in training by process 7 on here, which lives"
    assert lines[2] == "epoch 5 of 20, 3 members, about 30 s of training left"
    assert lines[3] == "last checkpoint: step 40, 1 min 15 s ago"
    assert "| mod:5/lr=0.1/wd=5e-4/seed=2 | 2.500 | 90.0 | 82.0 |" in lines
    assert lines[-1] == "not evaluated yet"


def test_many_members_are_a_line_for_each_label_map():
    names = tuple(f"{labels}/lr=0.1/wd=5e-4/seed={seed}" for labels in ("mod:5", "fine") for seed in range(10))
    text = status_text(run(part(names)))
    assert "| mod:5 | 10 | 5.000 (0.500 to 9.500) | 90.0 (90.0 to 90.0) | 84.5 (80.0 to 89.0) |" in text
    assert text.count("| fine |") == 1


def test_members_without_a_number_are_named():
    failed = part(failures=tuple(f"{name}: loss not finite in epoch 2" for name in NAMES[:2]))
    failed.last.values["train_loss"][NAMES[0]] = None
    text = status_text(run(failed))
    assert f"not finite: 2 of 3 members\n- {NAMES[0]}: loss not finite in epoch 2" in text
    assert f"| {NAMES[0]} | – | 90.0 | 80.0 |" in text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"trainer": None}, "mine: not in training; the same command goes on from the last checkpoint: ncjax run mine"),
        (
            {"trainer": Holder("process 7 on here", False)},
            "mine: not in training (process 7 on here is gone); the same",
        ),
        ({"trainer": Holder("process 7 on far", None)}, "mine: in training by process 7 on far, which cannot be asked"),
        (
            {"trainer": None, "evaluator": Holder("process 8 on here", True)},
            "mine: in evaluation by process 8 on here, which lives",
        ),
    ],
)
def test_whether_a_process_works_on_it(changes, line):
    assert status_text(run(part(), **changes)).splitlines()[0].startswith(line)


def test_a_run_that_has_ended(tmp_path):
    done = part(epochs=20, ended=True, left_secs=0.0)
    text = status_text(run(done, trainer=None, evaluated=True, report=tmp_path / "report.html"))
    assert text.startswith("mine: trained\n\nepoch 20 of 20, 3 members\n")
    assert text.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    assert status_text(run(done, trainer=None, evaluated=True)).endswith("evaluated, without a report")


def test_before_the_first_epoch_and_of_a_cohort():
    text = status_text(run(part(), part(epochs=0, last=None, checkpoint=None, left_secs=None, members=NAMES[:1])))
    assert "Cohort 1: epoch 0 of 20, 1 member\nno checkpoint yet" in text
