# SPDX-License-Identifier: Apache-2.0
"""A project with our launch scripts, and stand-ins for ncjax and the tools of platforms."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Writes its arguments and its variables to a log, one JSON object a call, and ends with the next of the codes in CODES.
STAND_IN = """
import json, os, sys
from pathlib import Path
folder = Path(os.environ["LOG"])
mine = folder / f"{os.path.basename(sys.argv[0])}.{os.environ.get('NCJAX_PROCESS', '')}"
told = {k: v for k, v in os.environ.items() if k.startswith(("NCJAX", "JAX", "CUDA"))}
with mine.open("a") as log:
    log.write(json.dumps([sys.argv[1:], told]) + "\\n")
"""
NCJAX = (
    STAND_IN
    + """
codes = os.environ.get("CODES", "0").split()
if ":" in codes[0]:
    codes = dict(c.split(":") for c in codes)[os.environ["NCJAX_PROCESS"]].split()
code = int(codes[min(len(mine.read_text().splitlines()), len(codes)) - 1])
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
)


def script(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)


def make_project(folder: Path) -> Path:
    """A folder `ncjax` with our launch scripts and an environment that setup.sh takes for whole; `bin` beside it."""
    project, tools = folder / "ncjax", folder / "bin"
    shutil.copytree(ROOT / "launch", project / "launch")
    shutil.copy(ROOT / "pyproject.toml", project)
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (project / ".venv" / "bin" / "activate").write_text(str((project / ".venv").resolve()))
    fingerprint = 'source launch/setup.sh && for e in "" -cuda -tpu; do fingerprint >"$VENV/installed$e"; done'
    subprocess.run(["bash", "-c", fingerprint], cwd=project, check=True)
    script(project / ".venv" / "bin" / "ncjax", NCJAX)
    tools.mkdir()
    (folder / "log").mkdir()
    return project


def launch(project: Path, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(project / "launch" / name), *arguments],
        cwd=project.parent,
        env=environment(project) | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def environment(project: Path) -> dict[str, str]:
    path = f"{project.parent / 'bin'}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(project.parent), "LOG": str(project.parent / "log"), "AGAIN_PAUSE": "0"}


def calls(project: Path, name: str) -> list[tuple[list[str], dict[str, str]]]:
    log = project.parent / "log" / name
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
