# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are cached for commands alone, where the user and JAX want them, and change no result."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.features.store import load_features
from ncjax.storage import caches
from ncjax.storage.caches import cache_folder, keep_compiled_programs
from tests.runs import environment_of_a_user, messages

ROOT = Path(__file__).parents[2]
HEAVY = "jax flax optax orbax numpy scipy sklearn torch altair vl_convert PIL rich jaxtyping"
SMALL = (
    "--labels mod:5 --seeds 2 --model.name mlp --model.width 8 --optim.epochs 2 --data.train-examples 128 "
    "--data.test-examples 64 --evaluate.epochs 1"
)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """That of a process which has not imported JAX; what is done to it is undone."""
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.delitem(sys.modules, "jax")
    return variables


def test_the_cache_folder_is_that_of_the_user(environment, tmp_path):
    assert cache_folder() == tmp_path / "cache" / "ncjax"
    del environment["XDG_CACHE_HOME"]
    environment["HOME"] = str(tmp_path / "home")
    home = "Library/Caches" if sys.platform == "darwin" else ".cache"
    assert cache_folder() == tmp_path / "home" / home / "ncjax"


def test_programs_are_kept_in_a_folder_for_this_processor(environment, tmp_path, monkeypatch):
    keep_compiled_programs()
    here = Path(environment.pop("JAX_COMPILATION_CACHE_DIR"))
    assert here.parent == tmp_path / "cache" / "ncjax" / "xla"
    assert here.is_dir()
    keep_compiled_programs()
    assert environment.pop("JAX_COMPILATION_CACHE_DIR") == str(here)
    monkeypatch.setattr(caches.platform, "machine", lambda: "another")
    keep_compiled_programs()
    assert Path(environment["JAX_COMPILATION_CACHE_DIR"]).parent == here.parent
    assert environment["JAX_COMPILATION_CACHE_DIR"] != str(here)


@pytest.mark.parametrize(
    "chosen", [{"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}, {"JAX_ENABLE_COMPILATION_CACHE": "False"}]
)
def test_the_variables_of_jax_decide(environment, tmp_path, chosen):
    environment |= chosen
    before = dict(environment)
    keep_compiled_programs()
    assert environment == before
    assert not (tmp_path / "cache").exists()


def test_nothing_is_set_for_a_program_that_uses_jax_already(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", pytest)
    before = dict(environment)
    keep_compiled_programs()
    assert environment == before


def a_file_in_its_place(variables, folder):
    (folder / "cache").write_text("a file")
    return "Not a directory"


def a_folder_above_that_is_a_file(variables, folder):
    (folder / "file").write_text("")
    variables["XDG_CACHE_HOME"] = str(folder / "file" / "cache")
    return "Not a directory"


def no_home_folder(variables, folder):
    """Of a user who has a number and no name."""
    del variables["XDG_CACHE_HOME"]
    return "there is no home folder"


def a_link_to_nothing(variables, folder):
    (folder / "cache").symlink_to(folder / "none" / "there")
    return "File exists"


@pytest.mark.parametrize(
    "spoil", [a_file_in_its_place, a_folder_above_that_is_a_file, no_home_folder, a_link_to_nothing]
)
def test_without_a_cache_folder_a_temporary_one_is_used_and_one_line_says_so(
    environment, tmp_path, monkeypatch, capsys, spoil
):
    monkeypatch.setattr(caches, "_TEMPORARY", [])
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    reason = spoil(environment, tmp_path)
    keep_compiled_programs()
    folder = cache_folder()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ncjax: note: no cache folder (")
    assert reason in line
    assert str(folder) in line
    assert "XDG_CACHE_HOME" in line
    assert Path(environment["JAX_COMPILATION_CACHE_DIR"]).is_relative_to(folder)
    caches._TEMPORARY.clear()
    assert not folder.exists()


def test_without_any_folder_commands_go_on_and_data_need_one(environment, tmp_path, monkeypatch, capsys):
    def none() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(caches, "_TEMPORARY", [])
    monkeypatch.setattr(caches, "TemporaryFolder", none)
    a_file_in_its_place(environment, tmp_path)
    keep_compiled_programs()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ncjax: note: compiled programs are not cached: no cache folder")
    assert "JAX_COMPILATION_CACHE_DIR" not in environment
    with pytest.raises(UserError, match="nor a temporary one"):
        cache_folder()


@pytest.mark.slow
def test_a_user_without_a_home_folder_or_a_name_gets_a_report(tmp_path):
    """As in a container that is started with the number of a user."""
    program = "import pwd; pwd.getpwuid = {}.__getitem__; from ncjax.cli.main import main; main()"
    arguments = ["run", str(ROOT / "configs" / "digits_demo.py"), "--workdir", str(tmp_path / "run"), *SMALL.split()]
    (tmp_path / "tmp").mkdir()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (note,) = messages(done.stderr)
    assert "there is no home folder" in note
    assert (tmp_path / "run" / "report.html").is_file()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_oldest_programs_make_room(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    caches._drop_oldest(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"new-cache", "middle-cache"}


@pytest.mark.parametrize("arguments", ["--help", "bench --help", "features --help", "bench collapse --help"])
def test_help_imports_nothing_heavy(arguments, tmp_path):
    program = f"""
import sys
from ncjax.cli.main import main
sys.argv = ["ncjax", *{arguments.split()}]
try:
    main()
except SystemExit as stop:
    assert not stop.code
found = {set(HEAVY.split())} & set(sys.modules)
sys.exit(f"imported: {{found}}" if found else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=variables(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage: ncjax" in done.stdout


def variables(folder: Path) -> dict[str, str]:
    """Those of a user whose cache folder is `folder`."""
    return environment_of_a_user() | {"XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)}


def start(folder: Path, workdir: Path) -> subprocess.Popen[str]:
    arguments = ["train", str(ROOT / "configs" / "digits_demo.py"), "--workdir", str(workdir), *SMALL.split()]
    command = [sys.executable, "-m", "ncjax", *arguments]
    return subprocess.Popen(command, env=variables(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], workdir: Path) -> tuple[list[dict], list[np.ndarray]]:
    """Metrics without times, and features, of a run that said nothing on stderr but its progress."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert messages(errors) == []
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = load_features(workdir, 2)
    features = [np.asarray(array) for split in (found.train, found.test) for array in split.layers["features"]]
    return [{name: value for name, value in line.items() if name != "wall_secs"} for line in lines], features


@pytest.mark.slow
def test_results_do_not_depend_on_what_is_kept(tmp_path):
    """Two runs at once fill a folder; a third finds it filled, but every second file of it cut short."""
    names = ("one", "at the same time", "later")
    together = [start(tmp_path / "cache", tmp_path / name) for name in names[:2]]
    found = [finish(process, tmp_path / name) for process, name in zip(together, names[:2], strict=True)]
    kept = sorted((tmp_path / "cache").rglob("*-cache"))
    assert len(kept) > 10
    for path in kept[::2]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found.append(finish(start(tmp_path / "cache", tmp_path / names[2]), tmp_path / names[2]))
    assert sorted((tmp_path / "cache").rglob("*-cache")) == kept
    for metrics, features in found[1:]:
        assert metrics == found[0][0]
        for ours, theirs in zip(features, found[0][1], strict=True):
            np.testing.assert_array_equal(ours, theirs)
