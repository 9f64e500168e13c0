# SPDX-License-Identifier: Apache-2.0
"""Tables over several settings, from rows with known numbers."""

from ncjax.report.groups import Quantity
from ncjax.reproduce.tables import change_table, comparison_differences, recipe_table, recovery_table, unlike
from ncjax.results import Comparison
from tests.report.rows import make_evaluation, make_row


def cells(table):
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]


def fine(seed, accuracy, **fields):
    return make_row("fine", seed, label_map="fine", values={Quantity("accuracy", "test", "coarse"): accuracy}, **fields)


def test_recovery_subtracts_the_fine_network_of_the_same_seed():
    rows = [make_row(seed=0, accuracy=0.80), make_row(seed=1, accuracy=0.84), fine(0, 0.90), fine(1, 0.92)]
    head, _, line = cells(recovery_table({"toy": make_evaluation(rows)}, "raw"))
    found = dict(zip(head, line, strict=True))
    assert (found["results"], found["labels"]) == ("toy", "mod:5, lr 0.1, wd 0.0005")
    assert found["CLP"] == "82.0 ± 2.8"
    assert found["fine network"] == "91.0 ± 1.4"
    assert found["CLP minus fine network"] == "-9.0 ± 12.7 (n = 2, by seed)"  # -10 and -8, t of one degree: 12.71


def test_recovery_without_a_fine_network_or_in_a_view_that_is_not_there():
    head, _, line = cells(recovery_table({"toy": make_evaluation([make_row()])}, "tsne"))
    found = dict(zip(head, line, strict=True))
    assert found["CLP"] == found["fine network"] == found["CLP minus fine network"] == "–"


def test_recovery_takes_the_last_epoch_and_each_setting():
    rows = [make_row(accuracy=0.5, epoch=10), make_row(accuracy=0.8), make_row(accuracy=0.7, lr=0.01), fine(0, 0.9)]
    lines = cells(recovery_table({"toy": make_evaluation(rows)}, "raw"))[2:]
    assert [line[7] for line in lines] == ["80.0", "70.0"]
    assert [line[8] for line in lines] == ["90.0", "–"]


def test_changes_are_from_the_first_setting_of_all_and_by_seed():
    base = make_evaluation([make_row(seed=0, accuracy=0.80), make_row(seed=1, accuracy=0.84), fine(0, 0.9)])
    other = make_evaluation([make_row(seed=0, accuracy=0.82), make_row(seed=1, accuracy=0.88)])
    head, _, first, second = cells(change_table({"base": base, "other": other}, "raw"))
    assert dict(zip(head, first, strict=True))["CLP, change"] == "–"
    found = dict(zip(head, second, strict=True))
    assert (found["results"], found["labels"], found["n"]) == ("other", "mod:5", "2")
    assert found["CLP"] == "85.0 ± 4.2"
    assert found["CLP, change"] == "+3.0 ± 12.7 (n = 2, by seed)"  # +2 and +4


def test_changes_in_a_view_that_is_not_there_are_missing():
    results = {name: make_evaluation([make_row()]) for name in ("base", "other")}
    head, _, _, second = cells(change_table(results, "tsne"))
    assert dict(zip(head, second, strict=True))["CLP, change"] == "–"


def test_differences_from_pytorch_are_by_seed():
    sides = {"ncjax": (make_row(seed=0, accuracy=0.8), make_row(seed=1, accuracy=0.9)),
             "PyTorch": (make_row(seed=0, accuracy=0.79), make_row(seed=1, accuracy=0.87))}  # fmt: skip
    found = Comparison(members=2, images_per_epoch=1, asked_epochs=1, epochs=1, budget_minutes=1.0, torch_options={},
                       torch_chosen="eager", speed={}, rows=sides)  # fmt: skip
    lines = {line[0]: line[1:] for line in cells(comparison_differences(found))}
    assert lines["CLP: raw"] == ["85.0 ± 7.1", "83.0 ± 5.7", "+2.0 ± 12.7 (n = 2, by seed)"]
    assert unlike(found) == ()
    assert lines["NC1 coarse"] == ["0.0123 ± 0.0000", "0.0123 ± 0.0000", "+0 ± 0 (n = 2, by seed)"]


def test_what_differs_from_pytorch_is_named():
    sides = {
        side: tuple(make_row(seed=seed, accuracy=accuracy + shift) for seed, accuracy in enumerate((0.8, 0.85, 0.81)))
        for side, shift in (("ncjax", 0.0), ("PyTorch", 0.02))
    }
    found = Comparison(members=3, images_per_epoch=1, asked_epochs=1, epochs=1, budget_minutes=1.0, torch_options={},
                       torch_chosen="eager", speed={}, rows=sides)  # fmt: skip
    assert unlike(found) == ("CLP: raw",)


def test_recipes_by_accuracy_beside_the_first():
    table = {"plain": make_evaluation([fine(0, 0.90), fine(1, 0.92)]),
             "cosine": make_evaluation([fine(0, 0.93), fine(1, 0.95)])}  # fmt: skip
    head, _, *lines = cells(recipe_table(table))
    assert head[-1] == "minus plain"
    assert [line[0] for line in lines] == ["cosine", "plain"]
    assert lines[0][2:] == ["94.0 ± 1.4", "+3.0 ± 0.0 (n = 2, by seed)"]
