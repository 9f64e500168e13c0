# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ncjax.config import Config, EvaluateConfig, MeshConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.results import Environment
from ncjax.storage.workdir import (
    RunFile,
    locked,
    open_workdir,
    read_config,
    read_config_of,
    read_json,
    read_run_file,
    results_locked,
    run_id,
)

ROOT = Path(__file__).parents[2]
HERE = Environment(versions={"jax": "1.2"}, commit="abc", device="8 x cpu")


def test_config_comes_back_with_what_a_number_needs(tmp_path):
    config = Config(seeds=3, optim=OptimConfig(lr=(0.1, 0.2)), evaluate=EvaluateConfig(layers=("features", "stage1")))
    open_workdir(tmp_path / "run", config, "ncjax train x.py", HERE)
    assert read_config(tmp_path / "run") == config
    found = read_run_file(tmp_path / "run")
    assert found == RunFile(
        config=found.config,
        command="ncjax train x.py",
        versions={"jax": "1.2"},
        commit="abc",
        device="8 x cpu",
        run=run_id(tmp_path / "run"),
    )
    open_workdir(tmp_path / "other", config, "ncjax train x.py", HERE)
    assert len({run_id(tmp_path / "run"), run_id(tmp_path / "other"), ""}) == 3
    assert found.config["optim"]["lr"] == [0.1, 0.2]
    content = read_json(tmp_path / "run" / "config.json")
    assert list(content) == ["config", "command", "versions", "commit", "device", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherConfig:
    sizes: tuple[int, ...] = (1, 2)


def test_configs_of_another_kind_are_read_by_their_kind(tmp_path):
    open_workdir(tmp_path, OtherConfig(sizes=(3,)), "ncjax theory", HERE)
    assert read_config_of(OtherConfig, tmp_path) == OtherConfig(sizes=(3,))
    with pytest.raises(UserError, match=r"config\.json .*another version.*unknown field"):
        read_config(tmp_path)


def test_directory_of_another_config_is_refused_and_the_differing_fields_are_named(tmp_path):
    config = Config()
    open_workdir(tmp_path, config, "a", HERE)
    written = (tmp_path / "config.json").read_bytes()
    free = {"mesh": MeshConfig(data=8), "checkpoint_minutes": 1.0, "tensorboard": True, "wandb": "project"}
    open_workdir(tmp_path, dataclasses.replace(config, **free), "b", HERE)
    other = dataclasses.replace(config, seeds=2, optim=dataclasses.replace(config.optim, batch=64))
    with pytest.raises(UserError, match=r"optim.batch: 128 there, 64 now; seeds: 1 there, 2 now"):
        open_workdir(tmp_path, other, "c", HERE)
    assert (tmp_path / "config.json").read_bytes() == written


def test_checkpoints_without_a_config_are_kept_and_no_run_is_made_of_them(tmp_path):
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds checkpoints, but its config\.json is gone; restore it"):
        open_workdir(tmp_path, Config(), "", HERE)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_directory_of_an_earlier_version_is_that_of_the_same_config(tmp_path):
    open_workdir(tmp_path, Config(), "a", HERE)
    content = read_json(tmp_path / "config.json")
    del content["config"]["evaluate"]["layers"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    open_workdir(tmp_path, Config(), "a", HERE)
    with pytest.raises(UserError, match=r"evaluate.layers: \['features'\] there"):
        open_workdir(tmp_path, Config(evaluate=EvaluateConfig(layers=("features", "stage1"))), "a", HERE)


@pytest.mark.parametrize("log", sorted((ROOT / "docs" / "logs").iterdir()), ids=lambda path: path.name)
def test_logs_of_the_results_page_can_be_read(log):
    assert read_config(log).name
    assert read_run_file(log).command.startswith("ncjax ")
    assert set(read_run_file(log).versions) >= {"python", "jax"}


def test_files_that_are_not_ours_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*config.json: No such file"):
        read_config(tmp_path)
    path = tmp_path / "config.json"
    for content, message in {
        "{": r"config.json is not JSON",
        "[]": "holds no config",
        '{"config": 3}': r"config\.json .*: config is 3, but must be an object",
        '{"config": {"seeds": 0}}': r"config\.json .*: seeds is 0, but must be from 1",
        '{"config": {}, "commit": 3}': r"config\.json .*: commit is 3, but must be text",
    }.items():
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_config(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        open_workdir(tmp_path / "file", Config(), "", HERE)


# ------------------------------------------------------------------ the lock

HOLD = "import sys\nfrom pathlib import Path\nfrom ncjax.storage.workdir import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"


@pytest.fixture
def other_process(tmp_path):
    """Another process that holds the lock of tmp_path until its input ends."""
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert held.stdout.readline() == "held\n"
    yield held
    held.kill()
    held.communicate()


def test_the_holder_is_named_and_readers_need_no_lock(tmp_path, other_process):
    open_workdir(tmp_path, Config(), "", HERE)
    held = f"is in use by process {other_process.pid} on {platform.node()}; wait"
    with pytest.raises(UserError, match=held), locked(tmp_path):
        pass
    with pytest.raises(UserError, match=held), locked(tmp_path):  # the first try changed nothing
        pass
    assert read_config(tmp_path) == Config()
    other_process.communicate("")
    with locked(tmp_path):
        pass


def test_the_lock_of_results_is_waited_for_and_its_holder_is_named(tmp_path):
    script = HOLD.replace("import locked", "import results_locked").replace("with locked(", "with results_locked(")
    start = [sys.executable, "-c", script, tmp_path]
    with subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout.readline() == "held\n"
        named = f"results is in use by process {other.pid} on {platform.node()}; wait for its end$"
        with pytest.raises(UserError, match=named), results_locked(tmp_path, 0.1):
            pass
        with locked(tmp_path):  # a trainer needs another one
            pass
        threading.Timer(0.3, other.stdin.close).start()
        with results_locked(tmp_path):
            assert other.wait() == 0
    assert {path.name for path in (tmp_path / "results").iterdir()} == {".lock"}


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path, other_process):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    with locked(tmp_path):
        pass


DRAFT = "import os, signal, sys\nfrom pathlib import Path\nfrom ncjax.storage.atomic import atomic_path\n"
DRAFT += "with atomic_path(Path(sys.argv[1])) as draft:\n    draft.write_text('half')\n"
DRAFT += "    os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.mark.parametrize(
    "name", ["report.html", "results/evaluation.json", "results/clusters/2.npz", "features/1.npz", "member_0.pt"]
)
def test_the_next_trainer_removes_the_drafts_of_a_killed_process(tmp_path, name):
    subprocess.run([sys.executable, "-c", DRAFT, tmp_path / name], cwd=ROOT, check=False)
    (draft,) = (path for path in tmp_path.rglob("*") if path.is_file())
    for kept in ("config.json", ".mine.txt", "results/.notes", f".a.{os.getpid()}@{platform.node()}.json"):
        (tmp_path / kept).parent.mkdir(exist_ok=True)
        (tmp_path / kept).write_text("")
    unfinished = tmp_path / "features" / "2.orbax-checkpoint-tmp" / "d"
    unfinished.mkdir(parents=True)
    (unfinished / "part").write_text("")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with locked(tmp_path):
        pass
    after = {path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before - after == {draft, unfinished / "part"}


def test_this_process_holds_it_once_and_lets_it_go(tmp_path):
    folder = tmp_path / "deep" / "run"
    for _ in range(2):
        with locked(folder):
            with pytest.raises(UserError, match=f"process {os.getpid()} on"), locked(folder):
                pass
            with pytest.raises(UserError, match=f"process {os.getpid()} on"), locked(folder):
                pass
    assert [path for path in folder.iterdir() if path.name != ".lock"] == []
    with pytest.raises(RuntimeError, match="inside"), locked(folder):
        raise RuntimeError("inside")
    with locked(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file: "), locked(tmp_path / "file"):
        pass
    with pytest.raises(UserError, match=r"cannot write .*run: Not a directory"), locked(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("name", ["a\\b", "a\\b/run", "\\", "run\udcff", "\udce9/run"])
def test_names_below_which_arrays_cannot_be_written_are_refused_before_anything_is(name, tmp_path):
    with pytest.raises(UserError, match="choose another") as caught, locked(tmp_path / name):
        pass
    str(caught.value).encode()
    assert list(tmp_path.iterdir()) == []
