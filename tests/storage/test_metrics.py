# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest

from ncjax.errors import UserError
from ncjax.storage.metrics import Record, append, join_records, keep_until, read_records

A, B = "mod:5/lr=0.1/wd=5e-4/seed=0", "fine/lr=0.1/wd=5e-4/seed=0"
OLD = '{"step": 10, "epoch": 1, "wall_secs": 1.5, "lr": [0.1, 0.2], "train_loss": [2.0, null]}\n'


def record(step, **values):
    return Record(step=step, epoch=step // 10, wall_secs=step / 10, values=values)


def test_records_come_back_and_what_is_not_finite_is_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append(path, record(10, train_loss={A: 1.0, B: math.nan}))
    append(path, record(20, train_loss={A: 0.5, B: math.inf}, nc1_fine={A: 2.0, B: 3.0}))
    first, second = read_records(path)
    assert first == record(10, train_loss={A: 1.0, B: None})
    assert second.values == {"train_loss": {A: 0.5, B: None}, "nc1_fine": {A: 2.0, B: 3.0}}
    assert json.loads(path.read_text().splitlines()[0]) == {
        "step": 10,
        "epoch": 1,
        "wall_secs": 1.0,
        "train_loss": {A: 1.0, B: None},
    }


def test_no_file_holds_no_records(tmp_path):
    assert read_records(tmp_path / "metrics.jsonl") == ()
    assert keep_until(tmp_path / "metrics.jsonl", 10) == 0.0
    assert list(tmp_path.iterdir()) == []


def test_lines_of_ncjax_0_1_are_read_with_numbers_or_given_names(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(OLD)
    (numbered,), (named,) = read_records(path), read_records(path, (A, B))
    assert numbered.values == {"lr": {"0": 0.1, "1": 0.2}, "train_loss": {"0": 2.0, "1": None}}
    assert named.values == {"lr": {A: 0.1, B: 0.2}, "train_loss": {A: 2.0, B: None}}
    assert (named.step, named.epoch, named.wall_secs) == (10, 1, 1.5)


def test_an_older_run_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(OLD + OLD.replace("10", "20"))
    assert keep_until(path, 10) == 1.5
    assert path.read_text() == OLD
    append(path, record(20, lr={A: 0.1, B: 0.2}))
    assert [list(line.values["lr"]) for line in read_records(path, (A, B))] == [[A, B], [A, B]]


def test_lines_after_the_checkpoint_and_half_written_ones_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (10, 20, 30):
        append(path, record(step, train_loss={A: 1.0}))
    path.write_text(path.read_text() + '{"step": 40, "trai')
    assert [line.step for line in read_records(path)] == [10, 20, 30]
    assert keep_until(path, 20) == 2.0
    assert [line.step for line in read_records(path)] == [10, 20]
    assert keep_until(path, 5) == 0.0
    assert path.read_text() == ""
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"\xff",
        b"[1]",
        b'{"step": "x", "epoch": 1, "wall_secs": 1}',
        b'{"step": 1}',
        b'{"step": 1, "epoch": 1, "wall_secs": 1, "lr": 0.1}',
        b'{"step": 1, "epoch": 1, "wall_secs": 1, "lr": {"a": "x"}}',
    ],
)
def test_a_damaged_line_before_the_last_is_an_error_and_stays(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(damage + b"\n" + OLD.encode())
    before = path.read_bytes()
    for read in (read_records, lambda path: keep_until(path, 20)):
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is damaged"):
            read(path)
    assert path.read_bytes() == before


def test_lines_of_several_files_are_joined_by_step():
    def line(step, name, **values):
        return Record(step=step, epoch=step // 5, wall_secs=2.0, values={k: {name: x} for k, x in values.items()})

    first = [line(5, "a", loss=1.0), line(10, "a", loss=0.5, nc1=3.0)]
    second = [line(5, "b", loss=2.0)]
    assert join_records([first]) == tuple(first)
    assert join_records([first, second]) == (
        Record(step=5, epoch=1, wall_secs=4.0, values={"loss": {"a": 1.0, "b": 2.0}}),
        first[1],
    )
    assert join_records([second, []]) == tuple(second)
    assert [one.wall_secs for one in join_records([first, second], at_once=True)] == [2.0, 2.0]
