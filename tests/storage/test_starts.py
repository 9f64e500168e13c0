# SPDX-License-Identifier: Apache-2.0
"""starts.jsonl says where training was each time that it started; lines that are not whole are left out."""

from ncjax.results import Environment
from ncjax.storage.metrics import METRICS, Record, append
from ncjax.storage.starts import STARTS, read_starts, record_start

HERE = Environment(versions={"jax": "1"}, commit="abc", device="1 x cpu")


def test_a_start_knows_how_far_training_had_come(tmp_path) -> None:
    assert read_starts(tmp_path) == ()
    record_start(tmp_path, "ncjax train a", HERE)
    for epoch in (1, 2):
        append(tmp_path / METRICS, Record(step=10 * epoch, epoch=epoch, wall_secs=1.0))
    record_start(tmp_path, "ncjax train b", HERE)
    found = read_starts(tmp_path)
    assert [(one.epoch, one.step, one.command) for one in found] == [(0, 0, "ncjax train a"), (2, 20, "ncjax train b")]
    assert {(one.device, one.commit) for one in found} == {("1 x cpu", "abc")}


def test_damage_costs_its_line_alone(tmp_path) -> None:
    record_start(tmp_path, "ncjax train", HERE)
    path = tmp_path / STARTS
    path.write_bytes(b'{"epoch": "two"}\n[1]\n\xff\n' + path.read_bytes() + b'{"epoch": 3')
    assert len(read_starts(tmp_path)) == 1
    (tmp_path / METRICS).write_text("no record\n{}\n")
    record_start(tmp_path, "again", HERE)
    assert read_starts(tmp_path)[-1].step == 0
