# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

from ncjax.errors import UserError
from ncjax.storage.metrics import Record, read_records
from ncjax.training.metrics import open_metrics

NAME = "mod:5/lr=0.1/wd=5e-4/seed=0"
RECORD = Record(step=10, epoch=1, wall_secs=0.5, values={"train_loss": {NAME: 0.5}})


def test_records_are_appended(tmp_path):
    for _ in range(2):
        with open_metrics(tmp_path, tensorboard=False) as write:
            write(RECORD)
    assert read_records(tmp_path / "metrics.jsonl") == (RECORD, RECORD)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_events_have_the_members_names_as_tags(tmp_path):
    pytest.importorskip("tensorboardX")
    with open_metrics(tmp_path, tensorboard=True) as write:
        write(RECORD)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train_loss/mod_5/lr_0.1/wd_5e-4/seed_0" in events.read_bytes()


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(UserError, match=r"tensorboard needs tensorboardX; install it with: pip install 'ncjax\["),
        open_metrics(tmp_path, tensorboard=True),
    ):
        pass
