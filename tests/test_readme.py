# SPDX-License-Identifier: Apache-2.0
"""The README's commands run as they are printed.

A ```bash block that follows the line `<!-- test -->` is run, all blocks in order in one folder that holds a copy of
configs/, with the commands of this environment on the path.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^<!-- test -->\n+```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_marks_stand_before_blocks() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(BLOCK.findall(text)) == text.count("<!-- test -->") > 0


@pytest.mark.timeout(600)
def test_commands_run_as_printed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for block in BLOCK.findall((ROOT / "README.md").read_text()):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
