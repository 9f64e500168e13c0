# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from ncjax.config import Config, OptimConfig
from ncjax.errors import UserError
from ncjax.training.metrics import keep_until, open_metrics
from ncjax.storage.workdir import open_workdir, read_config, read_json, write_json


def test_config_comes_back_with_what_a_number_needs(tmp_path):
    config = Config(seeds=3, optim=OptimConfig(lr=(0.1, 0.2)))
    open_workdir(tmp_path / "run", config, "ncjax train x.py")
    assert read_config(tmp_path / "run") == config
    content = read_json(tmp_path / "run" / "config.json")
    assert content["command"] == "ncjax train x.py"
    assert set(content["versions"]) >= {"python", "jax", "flax"}
    assert "8 x cpu" in content["device"]


def test_directory_of_another_config_is_refused_and_the_differing_fields_are_named(tmp_path):
    config = Config()
    open_workdir(tmp_path, config, "a")
    open_workdir(tmp_path, config, "b")
    other = dataclasses.replace(config, seeds=2, optim=dataclasses.replace(config.optim, batch=64))
    with pytest.raises(UserError, match=r"optim.batch: 128 there, 64 now; seeds: 1 there, 2 now"):
        open_workdir(tmp_path, other, "c")
    assert read_config(tmp_path) == config


def test_files_that_are_not_ours_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*config.json: No such file"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is not JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="holds no config"):
        read_config(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        open_workdir(tmp_path / "file", Config(), "")


def test_write_leaves_the_old_file_when_the_content_is_bad(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"x": 1}


def test_metrics_after_the_checkpoint_and_half_written_lines_are_dropped(tmp_path):
    with open_metrics(tmp_path, tensorboard=False) as write:
        for step in (10, 20, 30):
            write({"step": step, "wall_secs": step / 10, "train_loss": [1.0, float("nan")]})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 40, "trai')
    assert keep_until(path, 20) == 2.0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["step"] for record in records] == [10, 20]
    assert records[0]["train_loss"] == [1.0, None]
    assert keep_until(path, 5) == 0.0
    assert path.read_text() == ""


@pytest.mark.parametrize("damage", [b"{", b"\xff", b"[1]", b'{"step": "x", "wall_secs": 1}', b'{"step": 1}'])
def test_a_damaged_line_of_metrics_before_the_last_is_an_error_and_stays(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(damage + b'\n{"step": 20, "wall_secs": 2.0}\n')
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is damaged"):
        keep_until(path, 20)
    assert path.read_bytes() == before


def test_tensorboard_events_are_written_on_request(tmp_path):
    pytest.importorskip("tensorboardX")
    with open_metrics(tmp_path, tensorboard=True) as write:
        write({"step": 1, "train_loss": [0.5]})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train_loss/member_0" in events.read_bytes()
