# SPDX-License-Identifier: Apache-2.0
"""The commands and the code of the README and of the guides run as they are printed.

A ```bash or ```python block that follows the line `<!-- test -->` is run, all blocks of a page in order in one folder
that holds a copy of configs/, with the commands of this environment on the path. `<!-- test: slow -->` marks one that
takes long; the others are compiled as quickly as tests are.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import environment_of_a_user

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/coming_from_pytorch.md")
EXTENDING = "docs/guide/extending.md"
SCRIPT_LINES = 40
BLOCK = re.compile(r"^<!-- test(: slow)? -->\n+```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {"bash": ("bash", "-euo", "pipefail", "-c"), "python": (sys.executable, "-c")}


@pytest.mark.parametrize("page", [*PAGES, EXTENDING])
def test_marks_stand_before_blocks(page: str) -> None:
    text = (ROOT / page).read_text()
    assert len(BLOCK.findall(text)) == text.count("<!-- test") > 0


@pytest.mark.parametrize("page", PAGES[:1])
def test_blocks_run_as_printed(page: str, tmp_path: Path) -> None:
    run_blocks(page, tmp_path, [(language, block) for slow, language, block in blocks_of(page) if not slow])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES)
def test_slow_blocks_run_as_printed(page: str, tmp_path: Path) -> None:
    run_blocks(page, tmp_path, [(language, block) for _, language, block in blocks_of(page)])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_guide_to_extending_runs_as_printed(tmp_path: Path) -> None:
    """Its script alone, then its other blocks as one program."""
    script, *others = [block for _, _, block in blocks_of(EXTENDING)]
    assert script.count("\n") <= SCRIPT_LINES
    run_blocks(EXTENDING, tmp_path, [("python", script), ("python", "\n".join(others))])
    assert (tmp_path / "runs" / "own" / "report.html").stat().st_size > 10_000


def blocks_of(page: str) -> list[tuple[str, str, str]]:
    return BLOCK.findall((ROOT / page).read_text())


def run_blocks(page: str, tmp_path: Path, blocks: list[tuple[str, str]]) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = environment_of_a_user() | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for language, block in blocks:
        done = subprocess.run(
            [*COMMANDS[language], block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
