# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ncjax.config import Config
from ncjax.errors import UserError
from ncjax.storage.metrics import Record, read_records
from ncjax.training.metrics import open_metrics

ROOT = Path(__file__).parents[2]
NAME = "mod:5/lr=0.1/wd=5e-4/seed=0"
RECORD = Record(step=10, epoch=1, wall_secs=0.5, values={"train_loss": {NAME: 0.5}})


def test_records_are_appended(tmp_path):
    for _ in range(2):
        with open_metrics(tmp_path, Config()) as write:
            write(RECORD)
    assert read_records(tmp_path / "metrics.jsonl") == (RECORD, RECORD)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("anew", [False, True])
def test_a_work_directory_that_is_renamed_ends_the_run(tmp_path, anew):
    folder = tmp_path / "run"
    folder.mkdir()
    with open_metrics(folder, Config()) as write:
        write(RECORD)
        folder.rename(tmp_path / "moved")
        if anew:
            folder.mkdir()
        with pytest.raises(UserError, match="run is gone: was it renamed or deleted"):
            write(RECORD)
    assert folder.exists() is anew
    assert not (folder / "metrics.jsonl").exists()
    assert read_records(tmp_path / "moved" / "metrics.jsonl") == (RECORD,)


def test_metrics_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with (
        open_metrics(tmp_path, Config()) as write,
        pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: .*Is a directory.*; the same command goes on"),
    ):
        write(RECORD)


def test_tensorboard_events_have_the_members_names_as_tags(tmp_path):
    pytest.importorskip("tensorboardX")
    with open_metrics(tmp_path, Config(tensorboard=True)) as write:
        write(RECORD)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train_loss/mod_5/lr_0.1/wd_5e-4/seed_0" in events.read_bytes()


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(UserError, match=r"tensorboard needs tensorboardX; install it with: pip install 'ncjax\["),
        open_metrics(tmp_path, Config(tensorboard=True)),
    ):
        pass


def test_wandb_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(UserError, match=r"wandb needs the package of its name; install it with: pip install 'ncjax\["),
        open_metrics(tmp_path, Config(wandb="project")),
    ):
        pass


LOGGED = """
import sys
from pathlib import Path
from ncjax.config import Config
from ncjax.storage.metrics import Record
from ncjax.storage.workdir import RunFile, write_run_file
from ncjax.config import to_dict
from ncjax.training.metrics import open_metrics

config, workdir = Config(name="short", wandb="somebody/collapse"), Path(sys.argv[1])
write_run_file(workdir, RunFile(config=to_dict(config), run="4be1"))
values = {"train_loss": {"mod:5/seed=0": 0.125, "mod:5/seed=1": None}}
with open_metrics(workdir, config) as write:
    write(Record(step=10, epoch=1, wall_secs=0.5, values=values))
"""


def test_wandb_logs_by_the_members_names(tmp_path):
    """What the package itself writes where it is told to stay offline."""
    pytest.importorskip("wandb")
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", LOGGED, str(tmp_path)]
    subprocess.run(command, env=os.environ | offline | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    (log,) = (tmp_path / "wandb").glob("offline-run-*-4be1/run-4be1.wandb")
    content = log.read_bytes()
    for told in (b"train_loss/mod:5/seed=0", b"0.125", b"somebody", b"collapse", b"short"):
        assert told in content
    (record,) = read_records(tmp_path / "metrics.jsonl")
    assert record.values["train_loss"]["mod:5/seed=1"] is None
