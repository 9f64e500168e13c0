# SPDX-License-Identifier: Apache-2.0
"""What the linter does not know: licence lines, sizes, heavy imports, the mirror of tests, names, atomic writes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "ncjax", ROOT / "tests"
SOURCES = sorted(path for folder in ("ncjax", "configs") for path in (ROOT / folder).rglob("*.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
OF_THE_REPOSITORY = "repository"  # tests of what is not a module
OTHERS = sorted(path for folder in ("docs", "tests") for path in (ROOT / folder).rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
HEAVY = {
    "torch",
    "tensorflow",
    "tensorflow_datasets",
    "altair",
    "vl_convert",
    "openTSNE",
    "tensorboardX",
    "jinja2",
    "wandb",
}
FUNCTION_LINES = 40
FILE_LINES = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS, *OTHERS], ids=name_of)
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
    """torch_port is made of PyTorch, and is imported inside functions: `import ncjax.cli.main` must not load it."""
    return HEAVY - {"torch"} if path.parent.name == "torch_port" else HEAVY


def code_lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring and decorators."""
    first = node.body[0]
    described = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or 0) - first.lineno + 1 if described else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def modules_of(folder: Path) -> set[str]:
    """Names of the modules of a package; the package itself is `init`."""
    return {path.stem.strip("_") for path in folder.glob("*.py")}


@pytest.mark.parametrize(
    "path", sorted(path for path in TESTS.rglob("test_*.py") if path.parent.name != OF_THE_REPOSITORY), ids=name_of
)
def test_tests_mirror_the_package(path: Path) -> None:
    """`tests/ROOM/test_MODULE.py` or `tests/ROOM/test_MODULE_ASPECT.py` for a module of that room."""
    modules = modules_of(PACKAGE / path.parent.relative_to(TESTS))
    name = path.stem.removeprefix("test_")
    assert any(name == module or name.startswith(f"{module}_") for module in modules), sorted(modules)


def test_folders_of_tests_are_rooms() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")}
    assert {str(folder) for folder in folders} <= {".", OF_THE_REPOSITORY, *ROOMS}


def annotations(tree: ast.AST) -> Iterator[ast.expr]:
    """Those of the signatures of functions, methods and dataclasses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
            for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]:
                if argument.annotation:
                    yield argument.annotation
            if node.returns:
                yield node.returns
        elif isinstance(node, ast.ClassDef):
            yield from (item.annotation for item in node.body if isinstance(item, ast.AnnAssign))


def test_signatures_have_types_and_not_dictionaries_of_anything() -> None:
    found = [
        f"{name_of(path)}:{annotation.lineno}"
        for path in MODULES
        for annotation in annotations(ast.parse(path.read_text()))
        if "dict[str, Any]" in ast.unparse(annotation)
    ]
    assert len(found) < 10, found


def functions_of(path: Path) -> set[str]:
    """Functions that a module defines."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def exports_of(path: Path) -> dict[str, str]:
    """What `__init__.py` imports from the modules of its package, with the module that it comes from."""
    package = ".".join(path.parent.relative_to(ROOT).parts)
    imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: node.module or ""
        for node in imports
        for alias in node.names
        if (node.module or "").startswith(f"{package}.")
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_function_has_the_name_of_a_room_or_of_a_module_beside_it(path: Path) -> None:
    """Importing the room or the module would replace the function."""
    assert functions_of(path).isdisjoint(ROOMS)
    if path.name == "__init__.py":
        assert {*exports_of(path), *functions_of(path)}.isdisjoint(modules_of(path.parent))


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name != "storage" and path.stem != "buckets"], ids=name_of
)
def test_files_are_replaced_by_storage_alone(path: Path) -> None:
    """`storage.atomic` holds the one way to write a file whole or not at all."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    found = {ast.unparse(call) for call in calls if isinstance(call, ast.Attribute)}
    assert found.isdisjoint({"os.replace", "os.rename", "shutil.move", "json.dump"})
    assert not {call for call in found if call.endswith((".write_text", ".write_bytes"))}


DECOMPOSITIONS = ("eigh", "eigvalsh", "svd", "qr", "cholesky", "solve", "inv", "pinv", "triangular_solve")


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "linalg.py"], ids=name_of)
def test_matrices_are_decomposed_by_linalg_alone(path: Path) -> None:
    """Batches of jaxlib's decompositions can wait for each other for ever: `ops.linalg` says why."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    found = {ast.unparse(call) for call in calls if isinstance(call, ast.Attribute)}
    roots = ("jnp.linalg.", "lax.linalg.", "jax.lax.linalg.", "jax.scipy.linalg.")
    assert found.isdisjoint(root + name for root in roots for name in DECOMPOSITIONS)
