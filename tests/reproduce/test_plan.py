# SPDX-License-Identifier: Apache-2.0
"""What fits the time that is left, by costs that are known, estimated or unknown."""

import dataclasses
from pathlib import Path

import pytest

from ncjax.config import to_dict
from ncjax.errors import UserError
from ncjax.reproduce import all_experiments, find_experiments
from ncjax.reproduce.finished import Finished, Parts, write_finished
from ncjax.reproduce.plan import Cost, choose, list_tasks, overview, unfinished
from ncjax.results import Evaluation, Row
from ncjax.storage.metrics import Record, append

ALL = all_experiments()


def costs(*minutes):
    (task,) = list_tasks((ALL["digits"],), "cores", Path())
    names = [dataclasses.replace(task.piece, name=name) for name in "abc"]
    return [
        Cost(task._replace(piece=piece), None if one is None else float(one))
        for piece, one in zip(names, minutes, strict=False)
    ]


@pytest.mark.parametrize(("minutes", "left", "limit", "chosen"), [
    ((4, 3, 2), 8, 8, "a"),  # the most valuable
    ((4, 3, 2), 3.5, 8, "b"),  # the most valuable that fits
    ((4, 3, 2), 1, 8, None),  # all wait for the next call
    ((20, 3), 8, 8, "a"),  # never fits: begun, cut off, gone on with
    ((20, 3), 3.5, 8, "b"),  # but not when most of the call is over
    ((4, 20), 3, 8, None),
    ((None, 3), 8, 8, "a"),  # nobody knows
    ((), 8, 8, None),
    ((500, 3), float("inf"), float("inf"), "a"),
])  # fmt: skip
def test_choice(minutes, left, limit, chosen):
    found = choose(costs(*minutes), float(left), float(limit))
    assert (found and found.task.piece.name) == chosen


def tasks(root, name="coarse_cifar10", scale="gpu"):
    return list_tasks((ALL[name],), scale, root)


def finish(task, member, minutes, device="gpu"):
    about = Finished(member=member, piece=task.piece.name, members=task.piece.members, wall_secs=60.0 * minutes,
                     device=device, config=to_dict(task.piece.config))  # fmt: skip
    row = Row(name=member, kind="trained", member=0)
    return write_finished(task, about, Parts(Evaluation(rows=(row,))))


def test_what_was_measured_on_this_device_counts_more_than_the_estimate(tmp_path):
    first, second, *_ = tasks(tmp_path)
    assert [cost.minutes for cost in unfinished(tasks(tmp_path), "gpu")][:2] == [4.3, 4.3]
    finish(first, "mod:5/lr=0.1/wd=5e-4/seed=0", 7)
    left = unfinished(tasks(tmp_path), "gpu")
    assert left[0].task == second
    assert [cost.minutes for cost in left[:5]] == [7] * 5
    assert left[5].minutes == 4.3  # another setting
    assert unfinished(tasks(tmp_path), "another gpu")[0].minutes == 4.3


def test_a_piece_that_was_cut_off_costs_what_is_left_of_it(tmp_path):
    first = tasks(tmp_path)[0]
    first.workdir.mkdir(parents=True)
    append(first.workdir / "metrics.jsonl", Record(step=1, epoch=150, wall_secs=1.0))
    assert unfinished(tasks(tmp_path), "gpu")[0].minutes == 4.3  # nothing to go on from
    (first.workdir / "checkpoints" / "58500").mkdir(parents=True)
    assert unfinished(tasks(tmp_path), "gpu")[0].minutes == pytest.approx(4.3 / 4)


def test_a_piece_is_finished_with_its_last_member(tmp_path):
    (task,) = tasks(tmp_path, "digits", "cores")
    names = [f"{label}/seed={seed}" for label in task.piece.config.labels for seed in range(3)]
    for name in names[:-1]:
        finish(task, name, 1)
    assert unfinished([task], "gpu")
    finish(task, names[-1], 1)
    assert not unfinished([task], "gpu")


def test_the_overview_names_each_with_cost_and_what_is_finished(tmp_path):
    text = overview(tuple(ALL.values()), tmp_path)
    assert all(name in text and one.question in text for name, one in ALL.items())
    finish(tasks(tmp_path)[0], "mod:5/lr=0.1/wd=5e-4/seed=0", 7)
    assert "1 of 12 (gpu)" in overview(tuple(ALL.values()), tmp_path)


def test_a_scale_without_pieces_is_refused():
    with pytest.raises(UserError, match="architectures is not defined for --scale cores, but for try, gpu, slice"):
        list_tasks(find_experiments(["architectures"]), "cores", Path())


def test_members_of_another_definition_are_refused(tmp_path):
    first = tasks(tmp_path)[0]
    changed = dataclasses.replace(first.piece.config, model=dataclasses.replace(first.piece.config.model, width=8))
    other = first._replace(piece=dataclasses.replace(first.piece, config=changed))
    finish(other, "mod:5/lr=0.1/wd=5e-4/seed=0", 7)
    with pytest.raises(UserError, match=r"another definition of coarse_cifar10 \(model.width: 8 there, 64 now\)"):
        unfinished(tasks(tmp_path), "gpu")
