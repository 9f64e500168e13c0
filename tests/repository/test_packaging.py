# SPDX-License-Identifier: Apache-2.0
"""The wheel: what is in it, what it asks for, and that `ncjax demo` runs from it outside the repository.

Nothing is downloaded: the wheel is built with the setuptools of this environment and installed alone into an empty one,
which finds the dependencies, but not this checkout, through a path to this environment's packages.
"""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
PIP = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}  # which index
IMPORT_NAMES = {
    "vl-convert-python": "vl_convert",
    "jinja2": "jinja2",
    "optax": "optax",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
    "importlib-resources": "importlib_resources",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, as pip builds it, with the setuptools that is here."""
    source = tmp_path_factory.mktemp("source")
    for name in ("ncjax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", target, source)
    (built,) = target.glob("*.whl")
    return built


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ}
    done = subprocess.run(command, cwd=cwd, env=kept | variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_package_list_is_the_tree() -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "ncjax").rglob("*.py")}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == {".".join(path.parts) for path in folders} | {
        "ncjax.configs"
    }
    assert all((ROOT / folder / "__init__.py").exists() for folder in folders)


def test_wheel_holds_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = next(name.split("/")[0] for name in names if name.endswith("/METADATA"))
    assert f"{info}/licenses/LICENSE" in names
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "ncjax").rglob("*.py")}
    expected |= {f"ncjax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    parts = ("*.html.j2", "*.css", "*.js")
    expected |= {str(path.relative_to(ROOT)) for part in parts for path in (ROOT / "ncjax" / "report").glob(part)}
    assert "ncjax/report/report.html.j2" in expected
    expected |= {"ncjax/py.typed"}
    expected |= {"ncjax/data/coarse_cifar10_features.npz"}
    assert {name for name in names if not name.startswith(info)} == expected


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] in (">=3.11,<3.14", "<3.14,>=3.11")
    assert {
        "cuda",
        "tpu",
        "stream",
        "tfds",
        "tensorflow",
        "gcs",
        "tensorboard",
        "wandb",
        "torch",
        "tsne",
        "test",
        "dev",
    } <= set(metadata.get_all("Provides-Extra", []))
    (version,) = re.findall(r'^__version__ = "(.*)"', (ROOT / "ncjax" / "__init__.py").read_text(), re.MULTILINE)
    assert metadata["Version"] == version


def test_every_dependency_has_a_lower_bound() -> None:
    extras = PROJECT["optional-dependencies"]
    own = [*PROJECT["dependencies"], *(line for name in extras for line in extras[name])]
    assert {line for line in own if ">=" not in line} == {
        "jax[cuda12]",
        "jax[cuda13]",
        "jax[tpu]",
        "torch==2.13.*",  # of the tests alone
        *(line for line in own if line.startswith("ncjax[")),
    }


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").split(".")[0]


def test_imports_are_declared_and_declarations_are_imported() -> None:
    names = [re.split(r"[\[<>=]", line)[0] for line in PROJECT["dependencies"]]
    needed = {IMPORT_NAMES.get(name, name) for name in names}
    extras = [
        line
        for name in ("stream", "tfds", "tensorflow", "gcs", "torch", "tsne", "tensorboard", "wandb")
        for line in PROJECT["optional-dependencies"][name]
    ]
    optional = {IMPORT_NAMES.get(name, name) for name in (re.split(r"[\[<>=]", line)[0] for line in extras)}
    used = {
        name for folder in ("ncjax", "configs") for path in (ROOT / folder).rglob("*.py") for name in imports_of(path)
    }
    used_where_installed = {
        "absl",  # of grain
        "faiss",
        "flash_kmeans",
        "ott",
        "pandas",
        "torchvision",
    }  # peers of benchmarks; results as a table
    assert used - sys.stdlib_module_names - {"ncjax"} - optional - used_where_installed <= needed
    assert needed <= used


@pytest.mark.slow
def test_demo_runs_from_the_installed_wheel_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    here = [path for path in sys.path if Path(path).name == "site-packages"]  # more than one in a chained environment
    (packages / "dependencies.pth").write_text("\n".join(here) + "\n")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    where = run(python, "-c", "import ncjax; print(ncjax.__file__)", cwd=folder)
    assert Path(where.strip()) == packages / "ncjax" / "__init__.py"
    variables = {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    out = run(tmp_path / "venv" / "bin" / "ncjax", "demo", "--optim.epochs", "2", cwd=folder, **variables)
    report = Path(re.findall(r"^report: (.*)$", out, re.MULTILINE)[-1])
    assert folder in report.parents
    assert "<h1>" in report.read_text()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_messages_about_tfds_advise_works_in_a_new_environment(wheel: Path, tmp_path: Path) -> None:
    """`pip install 'ncjax[tensorflow]'`, then `ncjax data fetch tfds:NAME`; the packages come from an index."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv" / "bin" / "pip", "install", "-q", f"{wheel}[tensorflow]", **PIP)
    for name in ("animals.py", "animals_builder.py"):
        (tmp_path / "tests").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    script = "import tests.animals_builder; from ncjax.cli.main import main; main()"
    arguments = ("data", "fetch", "tfds:animals", "--data-dir", tmp_path / "sets")
    out = run(tmp_path / "venv" / "bin" / "python", "-c", script, *arguments, cwd=tmp_path, JAX_PLATFORMS="cpu")
    assert "animals/1.0.0: 10 training and 6 test images, 3 classes" in out
