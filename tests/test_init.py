# SPDX-License-Identifier: Apache-2.0
"""`import ncjax`: light, complete, typed, and every example in a docstring of it runs."""

import doctest
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import ncjax

ROOT = Path(__file__).parents[1]
NAMES = [name for name in dir(ncjax) if name != "__version__"]
EXPECTED = {
    *("Config", "DataConfig", "ModelConfig", "OptimConfig", "EvaluateConfig", "MeshConfig", "Dataset", "LabelMap"),
    *("train", "Run", "extract_features", "FeatureSet", "evaluate", "Evaluation", "cluster_and_linear_probe"),
    *("fit_linear_probe", "kmeans", "KMeans", "choose_num_clusters", "collapse", "LossConfig"),
    *("load_dataset", "show_progress"),
    *("Network", "Variables", "from_nnx", "from_linen", "reproduce"),
}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_public_names_are_these():
    assert set(NAMES) == EXPECTED
    assert set(ncjax.__all__) == set(dir(ncjax))


def test_importing_loads_nothing_heavy_until_a_name_is_used():
    heavy = "{'jax', 'flax', 'optax', 'orbax', 'sklearn', 'numpy', 'tyro', 'cattrs'}"
    loaded = python(f"import sys, ncjax; dir(ncjax); print(sorted({heavy} & set(sys.modules)))")
    assert loaded == "[]"
    assert python("import sys, ncjax; ncjax.Config; print('jax' in sys.modules)") == "False"
    assert python("import sys, ncjax; ncjax.KMeans; print('jax' in sys.modules)") == "True"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'evaluate_arrays'"):
        _ = ncjax.evaluate_arrays


def test_type_checkers_see_every_name(tmp_path):
    """The names and their signatures, as a user's code is checked; two wrong calls are found."""
    uses = "\n".join(f"ncjax.{name}" for name in NAMES)
    file = tmp_path / "use.py"
    file.write_text(f"import ncjax\n{uses}\nncjax.evaluate(3)\nncjax.train(ncjax.Config(), epochs=3)\n")
    done = subprocess.run([sys.executable, "-m", "mypy", str(file)], cwd=ROOT, capture_output=True, text=True)
    errors = [line.split("[")[-1] for line in done.stdout.splitlines() if ": error:" in line]
    assert errors == ["arg-type]", "call-arg]"], done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_say_what_and_examples_run(name):
    thing = getattr(ncjax, name)
    things = (
        {f"collapse.{part}": getattr(thing, part) for part in thing.__all__}
        if isinstance(thing, types.ModuleType)
        else {name: thing}
    )
    finder, runner = doctest.DocTestFinder(recurse=True), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tried = 0
    for called, one in things.items():
        if not callable(one):
            continue
        assert len(inspect.getdoc(one) or "") > 40, called
        module = sys.modules[getattr(inspect.unwrap(one), "__module__", "ncjax")]
        for test in finder.find(inspect.unwrap(one), called, module=module, globs=vars(module) | {"ncjax": ncjax}):
            tried += len(test.examples)
            assert name in RUN_IN_THEIR_ROOMS or runner.run(test).failed == 0, test.name
    if name in EXAMPLES:
        assert tried > 0, f"{name} has no example"


RUN_IN_THEIR_ROOMS = ("kmeans", "KMeans", "choose_num_clusters", "collapse")  # tests/cluster, tests/collapse
EXAMPLES = EXPECTED - {
    *("Run", "extract_features", "DataConfig", "ModelConfig", "OptimConfig", "EvaluateConfig", "MeshConfig"),
    *("LossConfig", "from_linen"),
}
