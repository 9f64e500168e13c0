# SPDX-License-Identifier: Apache-2.0
"""The launch scripts on a stand-in project: which Python, one installation, repair, exit codes. No network is used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "dirname", "grep", "mkdir", "rm", "touch")

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "ncjax"
version = "1"
"""

# Builds the wheel of a package whose commands announce their name; dies like a killed machine where KILL is set.
BACKEND = '''
import os, signal, zipfile

INFO = "ncjax-1.dist-info/"
COMMANDS = ("ncjax", "ruff", "mypy", "lint-imports", "shellcheck")
FILES = {
    "stand_in.py": """import os, sys
def announce(name=None):
    name = name or os.path.basename(sys.argv[0])
    print(name, *sys.argv[1:], "in", os.getcwd())
    sys.exit(int(os.environ.get("FAIL_" + name.replace("-", "_"), 0)))
""",
    "pytest.py": "import stand_in\\nstand_in.announce('pytest')\\n",
    INFO + "METADATA": "Metadata-Version: 2.1\\nName: ncjax\\nVersion: 1\\nProvides-Extra: dev\\n",
    INFO + "WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    INFO + "entry_points.txt": "[console_scripts]\\n" + "".join(f"{name} = stand_in:announce\\n" for name in COMMANDS),
    INFO + "RECORD": "",
}

def build_editable(folder, settings=None, metadata=None):
    if os.environ.get("KILL"):
        os.killpg(0, signal.SIGKILL)
    with open("builds", "a") as log:
        log.write("built\\n")
    name = "ncjax-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
    return name
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with our launch scripts, and beside it `bin` with the few tools that they may use."""
    project = tmp_path / "a project"
    shutil.copytree(ROOT / "launch", project / "launch")
    shutil.copytree(ROOT / ".ci", project / ".ci")
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "backend.py").write_text(BACKEND)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    return project


def add_python(project: Path, name: str, version: tuple[int, int] | None = None) -> Path:
    """Puts a Python on the path: this one, or one that says it is another version and can do nothing else."""
    path = project.parent / "bin" / name
    lie = f"import sys; sys.version_info = {version and (*version, 0)}; exec(sys.argv[1])"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {"" if version is None else f"""-c "{lie}" "$2" """} "$@"\n')
    path.chmod(0o755)
    return path


def launch(project: Path, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(project.parent / "bin"), "HOME": str(project.parent), "PIP_NO_INDEX": "1"} | variables
    return subprocess.run(
        ["bash", str(project / script), *arguments],
        cwd=project.parent,
        env=environment,
        start_new_session=True,
        capture_output=True,
        text=True,
    )


def builds(project: Path) -> int:
    log = project / "builds"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize("script", ["launch/local.sh", "launch/test.sh", ".ci/run"])
def test_too_old_python_is_one_clear_line(project: Path, script: str) -> None:
    add_python(project, "python3", version=(3, 10))
    add_python(project, "python3.13", version=(3, 14))
    done = launch(project, script)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "needs Python 3.11, 3.12 or 3.13; python3.13 is 3.14, python3 is 3.10," in done.stderr
    assert not (project / ".venv").exists()


def test_no_python_at_all(project: Path) -> None:
    done = launch(project, "launch/local.sh")
    assert done.returncode == 1
    assert "found none" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_named_python_is_the_only_choice(project: Path) -> None:
    add_python(project, "python3")
    done = launch(project, "launch/local.sh", PYTHON="/no/such/python")
    assert done.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13; found none" in done.stderr


def test_local_installs_once_and_needs_no_pip_afterwards(project: Path) -> None:
    shim = project.parent / "bin" / "python3.13"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    add_python(project, "python3")
    first = launch(project, "launch/local.sh", "--seeds", "2")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"ncjax demo --seeds 2 in {project.resolve()}"
    assert builds(project) == 1

    for pip in project.glob(".venv/lib/python*/site-packages/pip"):
        shutil.rmtree(pip)
    second = launch(project, "launch/local.sh")
    assert second.returncode == 0, second.stderr
    assert second.stdout == f"ncjax demo in {project.resolve()}\n"


@pytest.mark.slow
def test_repairs_after_a_kill_a_move_and_a_new_pyproject(project: Path) -> None:
    add_python(project, "python3")
    killed = launch(project, "launch/local.sh", KILL="1")
    assert killed.returncode < 0
    leftover = project / ".venv" / "leftover"
    leftover.touch()
    repaired = launch(project, "launch/local.sh")
    assert repaired.returncode == 0, repaired.stderr
    assert not leftover.exists()
    assert builds(project) == 1

    with (project / "pyproject.toml").open("a") as file:
        file.write('description = "changed"\n')
    assert launch(project, "launch/local.sh").returncode == 0
    assert builds(project) == 2

    moved = project.rename(project.with_name("moved"))
    done = launch(moved, "launch/local.sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"ncjax demo in {moved.resolve()}"


@pytest.mark.slow
def test_failed_installation_is_reported_and_tried_again(project: Path) -> None:
    add_python(project, "python3")
    backend = project / "backend.py"
    backend.write_text("raise SystemError\n")
    failed = launch(project, "launch/local.sh")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == "ncjax: the installation failed (see above); is there a network?"
    backend.write_text(BACKEND)
    assert launch(project, "launch/local.sh").returncode == 0


def test_test_script_runs_every_check_and_returns_their_verdict(project: Path) -> None:
    add_python(project, "python3")
    done = launch(project, ".ci/run")
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert names == ["ruff", "ruff", "mypy", "lint-imports", "shellcheck", "pytest", "pytest"]
    *_, suite, browser = done.stdout.splitlines()
    assert "pytest -n auto" in suite
    assert browser.startswith("pytest -m browser -rs in")
    chosen = launch(project, "launch/test.sh", "tests/test_launch.py", "-x")
    assert chosen.stdout.splitlines()[-1].startswith("pytest tests/test_launch.py -x in")
    for name in ("ruff", "mypy", "lint_imports", "shellcheck", "pytest"):
        assert launch(project, "launch/test.sh", **{f"FAIL_{name}": "3"}).returncode == 3


def test_scripts_are_executable() -> None:
    for script in ("launch/local.sh", "launch/test.sh", "launch/browser.sh", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK), script
