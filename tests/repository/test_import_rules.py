# SPDX-License-Identifier: Apache-2.0
"""The import rules of pyproject.toml are kept, and refuse what they are there to refuse: on copies with a violation."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")
ROOT = Path(__file__).parents[2]
LAYERS = "Imports go down, and never sideways"
REPORT = "The report reads results; it imports no stage"
THEORY = "The synthetic setting and the training of images do not meet"
CLI = "The command line calls public functions and nothing below them"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package beside a copy of the rules."""
    shutil.copytree(ROOT / "ncjax", tmp_path / "ncjax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    """Exit code and output of `lint-imports` in a folder."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def test_the_tree_keeps_every_rule(copy: Path) -> None:
    code, output = lint(copy)
    assert code == 0, output
    for rule in (LAYERS, REPORT, THEORY, CLI):
        assert f"{rule} KEPT" in output
    assert " 0 broken" in output


@pytest.mark.parametrize(
    ("rule", "importer", "imported"),
    [
        # sideways
        (LAYERS, "cluster", "collapse"),
        (LAYERS, "data", "models"),
        (LAYERS, "report", "theory"),
        (LAYERS, "theory", "torch_port"),
        (LAYERS, "storage", "distributed"),
        (LAYERS, "results", "config"),
        # upward
        (LAYERS, "errors", "config"),
        (LAYERS, "storage", "data"),
        (LAYERS, "training", "features"),
        (LAYERS, "features", "evaluation"),
        (LAYERS, "evaluation", "pipeline"),
        (LAYERS, "bench", "cli"),
        # downward, where it is not wanted
        (REPORT, "report", "features"),
        (THEORY, "theory", "training"),
        (CLI, "cli", "training"),
    ],
)
def test_a_violation_is_refused_and_named(copy: Path, rule: str, importer: str, imported: str) -> None:
    assert importer != imported
    room = copy / "ncjax" / importer
    name = f"ncjax.{importer}.violation" if room.is_dir() else f"ncjax.{importer}"
    with (room / "violation.py" if room.is_dir() else room.with_suffix(".py")).open("a") as file:
        file.write(f"\nimport ncjax.{imported}\n")
    code, output = lint(copy)
    assert code == 1, output
    assert f"{rule} BROKEN" in output
    assert f"{name} -> ncjax.{imported}" in output
    assert f"ncjax.{importer} is not allowed to import ncjax.{imported}" in output


def test_the_way_over_the_public_names_is_refused_too(copy: Path) -> None:
    (copy / "ncjax" / "collapse" / "violation.py").write_text("from ncjax import evaluate\n")
    code, output = lint(copy)
    assert code == 1, output
    assert f"{LAYERS} BROKEN" in output
    assert "ncjax.collapse is not allowed to import ncjax.evaluation" in output


def test_a_new_room_needs_a_floor(copy: Path) -> None:
    (copy / "ncjax" / "attic").mkdir()
    (copy / "ncjax" / "attic" / "__init__.py").write_text("")
    code, output = lint(copy)
    assert code == 1, output
    assert "attic" in output
