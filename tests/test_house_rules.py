# SPDX-License-Identifier: Apache-2.0
"""What the linter does not know: licence lines, sizes, and where heavy packages may be imported."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("ncjax", "configs") for path in (ROOT / folder).rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
HEAVY = {"torch", "tensorflow", "tensorflow_datasets", "matplotlib", "openTSNE", "tensorboardX", "jinja2"}
FUNCTION_LINES = 40
FILE_LINES = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS, *sorted((ROOT / "tests").rglob("*.py"))], ids=name_of)
def test_licence_line(path: Path) -> None:
    assert "# SPDX-License-Identifier: Apache-2.0" in path.read_text().splitlines()[:2]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_sizes_and_heavy_imports(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert code_lines(node) <= FUNCTION_LINES, node.name
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
            modules += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            heavy = heavy_here(path) & {module.split(".")[0] for module in modules}
            assert not heavy, f"import {heavy} inside the function that needs it"


def heavy_here(path: Path) -> set[str]:
    """torch_port is made of PyTorch, and is itself imported inside functions: `import ncjax.cli.main` must not load it."""
    return HEAVY - {"torch"} if path.parent.name == "torch_port" else HEAVY


def code_lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring and decorators."""
    first = node.body[0]
    described = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or 0) - first.lineno + 1 if described else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring
