# SPDX-License-Identifier: Apache-2.0
"""Finished members on disk: whole or not there, checked when they are read, and joined into results."""

import dataclasses

import numpy as np
import pytest

from ncjax.config import to_dict
from ncjax.errors import UserError
from ncjax.report import run_summary, write_report
from ncjax.report.read import read_results
from ncjax.reproduce import all_experiments
from ncjax.reproduce.finished import (
    Finished,
    Parts,
    Task,
    collect,
    folder_name,
    members_of,
    of_member,
    read_finished,
    recovered_labels,
    results_name,
    write_finished,
)
from ncjax.results import Clusters, Evaluation, Provenance
from ncjax.storage.checksums import CHECKSUMS
from ncjax.storage.metrics import Record
from tests.report.rows import METRICS, VIEWS, make_row

COARSE = "mod:5/lr=0.1/wd=5e-4/seed={}"
FINE = "fine/lr=0.1/wd=5e-4/seed={}"


def tasks(root, count=4):
    pieces = all_experiments()["coarse_cifar10"].at("gpu")[:count]
    return [Task(root, "coarse_cifar10", "gpu", piece) for piece in pieces]


def evaluation(*rows, **fields):
    made = Provenance(name="coarse_cifar10", dataset="cifar10", command="ncjax reproduce coarse_cifar10", **fields)
    return Evaluation(rows=rows, metrics=METRICS, views=VIEWS, provenance=made)


def finish(task, name, row, *, secs=60.0, device="gpu", loss=1.0):
    about = Finished(member=name, piece=task.piece.name, members=1, wall_secs=secs, device=device,
                     config=to_dict(task.piece.config))  # fmt: skip
    record = Record(step=390, epoch=1, wall_secs=5.0, values={"train_loss": {name: loss}})
    config = to_dict(task.piece.config)
    return write_finished(task, about, Parts(evaluation(row, config=config), (record,) if name else ()))


@pytest.fixture
def finished(tmp_path):
    """Two seeds on coarse labels, one on fine ones, and the controls, each from a piece of its own."""
    coarse, fine, second, _ = tasks(tmp_path)
    finish(coarse, COARSE.format(0), make_row(name=COARSE.format(0), member=0, accuracy=0.8), secs=61.0)
    finish(coarse, "", make_row("raw_pixels", name="raw pixels", member=None, epoch=None))
    finish(fine, FINE.format(0), make_row("fine", name=FINE.format(0), member=0), device="another", loss=2.0)
    finish(second, COARSE.format(1), make_row(name=COARSE.format(1), member=0, seed=1, accuracy=0.9), loss=3.0)
    return coarse


def test_results_are_those_of_all_members_that_are_finished(finished):
    folder = collect(finished)
    found = read_results(folder)
    names = [COARSE.format(0), COARSE.format(1), FINE.format(0)]
    assert {row.name: row.member for row in found.evaluation.rows if row.member is not None} == {
        row.name: found.evaluation.rows.index(row) for row in found.evaluation.rows if row.name in names
    }
    assert sum(row.kind == "raw_pixels" for row in found.evaluation.rows) == 1
    (record,) = found.metrics
    assert record.values["train_loss"] == dict(zip(names, (1.0, 3.0, 2.0), strict=True))
    made = found.evaluation.provenance
    assert set(made.device.split("; ")) == {"gpu", "another"}
    assert made.wall_secs == {"coarse_0": 61.0, "coarse_1": 60.0, "fine_0": 60.0}


def test_seconds_of_members_that_were_trained_at_once_are_counted_once(tmp_path):
    one, other = tasks(tmp_path, 2)
    for task, seed in ((one, 0), (one, 1), (other, 2)):
        name = COARSE.format(seed)
        finish(task, name, make_row(name=name, member=0, seed=seed))
    (record,) = read_results(collect(one)).metrics
    assert set(record.values["train_loss"]) == {COARSE.format(seed) for seed in range(3)}
    assert record.wall_secs == 2 * 5.0  # two pieces


def test_the_results_are_a_work_directory_for_the_report(finished):
    folder = collect(finished)
    assert folder.name == results_name("coarse_cifar10", "", "gpu") == "coarse_cifar10_gpu"
    assert "85.0 ± 7.1" in run_summary(folder)  # of both seeds
    assert write_report(folder).is_file()


def test_what_was_half_written_does_not_count(finished):
    (folder,) = (one for one, about in read_finished(finished).items() if about.member == COARSE.format(1))
    (folder / CHECKSUMS).unlink()
    assert COARSE.format(1) not in {about.member for about in read_finished(finished).values()}


@pytest.mark.parametrize("file", ["evaluation.json", "member.json", "metrics.jsonl"])
def test_what_was_damaged_on_its_way_is_refused(finished, file):
    folder = next(iter(read_finished(finished)))
    if not (folder / file).exists():
        folder = finished.members / folder_name(finished.piece, COARSE.format(0))
    (folder / file).write_bytes((folder / file).read_bytes()[:-9])
    with pytest.raises(UserError, match=f"is damaged.*{file} is not what was written.*copy it again"):
        read_finished(finished)


def test_nothing_finished_makes_no_results(tmp_path):
    task, *_ = tasks(tmp_path)
    assert collect(task) is None
    finish(task, "", make_row("raw_pixels", name="raw pixels", member=None, epoch=None))
    assert collect(task) is None
    assert not task.results.exists()


def test_folders_have_names_for_every_file_system():
    task = tasks("", 1)[0]
    assert folder_name(task.piece, "shuffled:mod:5:0/lr=0.1/wd=5e-4/seed=0") == "shuffled_mod_5_0_lr_0.1_wd_5e-4_seed_0"


def test_rows_and_lines_by_member():
    rows = [make_row(name="one"), make_row("raw_pixels", name="raw pixels", member=None, epoch=None),
            make_row(name="two", member=1)]  # fmt: skip
    assert {name: len(of) for name, of in members_of(evaluation(*rows)).items()} == {"one": 1, "": 1, "two": 1}
    record = Record(step=1, epoch=1, wall_secs=1.0, values={"a": {"one": 1.0, "two": 2.0}, "b": {"two": 3.0}})
    (line,) = of_member([record], "one")
    assert line.values == {"a": {"one": 1.0}}


def test_recovered_labels_are_those_of_the_row_in_small_numbers():
    rows = [make_row(name="one"), make_row(name="two", member=1)]
    clusters = Clusters(
        train=np.array([[0, 1, 1], [1, -1, 0]]),
        test=None,
        super_class=np.array([[0, 0], [0, 0]]),
        matching=np.array([[0, 5], [5, 0]]),
    )
    found = recovered_labels(dataclasses.replace(evaluation(*rows), clusters={"raw": clusters}), rows[1])
    assert set(found) == {"raw_train"}
    assert found["raw_train"].dtype == np.int8
    assert found["raw_train"].tolist() == [0, -1, 5]
