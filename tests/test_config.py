# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_origin

import pytest

from ncjax.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    from_dict,
    load_config,
    to_dict,
)
from ncjax.errors import UserError

IMPORT = "from ncjax.config import Config"
FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith(("__", "theory_")))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_survives_json(path):
    config = load_config(path)
    assert config.name == path.stem
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_the_experiments_of_the_issue_are_there():
    configs = {path.stem: load_config(path) for path in CONFIGS}
    assert set(configs) >= {"digits_demo", "coarse_cifar10_cpu", "coarse_fashion"}
    coarse, fine, grid = (configs[name] for name in ("coarse_cifar10", "fine_cifar10", "coarse_cifar10_grid"))
    expected = OptimConfig(
        lr=(0.1,), weight_decay=(5e-4,), momentum=0.9, nesterov=True, schedule="step", batch=128, epochs=200
    )
    assert coarse.optim == fine.optim == expected
    assert (coarse.model.name, coarse.model.width) == ("resnet18", 64)
    assert (coarse.labels, fine.labels) == (("mod:5",), ("fine",))
    assert (coarse.data.crop_padding, coarse.data.flip) == (4, True)
    assert len(grid.optim.lr) * len(grid.optim.weight_decay) * grid.seeds == 45


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(seeds=0), "seeds is 0, but must be from 1 to 100000"),
        (lambda: Config(labels=()), "labels is (), but must be one or more label maps"),
        (lambda: Config(chunk_steps=-1), "chunk_steps is -1"),
        (lambda: Config(checkpoint_epochs=-1), "checkpoint_epochs is -1, but must be 0 or more"),
        (lambda: Config(checkpoint_minutes=float("nan")), "checkpoint_minutes is nan"),
        (lambda: ModelConfig(width=0), "model.width is 0, but must be from 1 to 100000"),
        (lambda: ModelConfig(dense_blocks=()), "model.dense_blocks is ()"),
        (lambda: ModelConfig(dense_blocks=(6, 0)), "model.dense_blocks is (6, 0)"),
        (lambda: OptimConfig(batch=0), "optim.batch is 0, but must be from 1 to 2147483647"),
        (lambda: OptimConfig(lr=()), "optim.lr is (), but must be one or more numbers in a tuple"),
        (lambda: OptimConfig(lr=(float("nan"),)), "optim.lr"),
        (lambda: OptimConfig(lr=(float("inf"),)), "optim.lr"),
        (
            lambda: OptimConfig(lr=(0.1, 0.2, 0.1)),
            "optim.lr is (0.1, 0.2, 0.1), but must be numbers that differ; use seeds",
        ),
        (lambda: OptimConfig(weight_decay=(-1.0,)), "optim.weight_decay"),
        (
            lambda: OptimConfig(weight_decay=(0.0, 0.0)),
            "optim.weight_decay is (0.0, 0.0), but must be numbers that differ",
        ),
        (lambda: OptimConfig(momentum=1.0), "optim.momentum is 1.0, but must be from 0 to below 1"),
        (lambda: OptimConfig(epochs=0), "optim.epochs"),
        (lambda: MeshConfig(member=-1), "mesh.member is -1, but must be 0 or more"),
        (lambda: MeshConfig(member=0, data=0), "mesh.data is 0, but must be 1 or more where mesh.member is 0"),
        (lambda: Config(mesh=MeshConfig(data=3)), "mesh.data is 3, but must be a divisor of optim.batch = 128"),
        (lambda: EvaluateConfig(epochs=(-1,)), "evaluate.epochs is (-1,)"),
        (lambda: Config(evaluate=EvaluateConfig(epochs=(500,))), "evaluate.epochs is (500,), but must be from 0 to "),
        (lambda: EvaluateConfig(variants=()), "evaluate.variants"),
        (lambda: EvaluateConfig(layers=()), "evaluate.layers"),
        (lambda: EvaluateConfig(restarts=0), "evaluate.restarts is 0"),
        (lambda: EvaluateConfig(observe_images=0), "evaluate.observe_images is 0"),
        (lambda: DataConfig(crop_padding=-1), "data.crop_padding is -1, but must be from 0 to 128"),
        (lambda: DataConfig(test_examples=-1), "data.test_examples is -1, but must be 0 or more"),
    ],
)
def test_a_config_out_of_range_cannot_be_made_and_the_field_is_named_in_one_line(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


KINDS = (Config, DataConfig, ModelConfig, LossConfig, OptimConfig, MeshConfig, EvaluateConfig)
PREFIX = dict(zip(KINDS, ("", "data.", "model.", "loss.", "optim.", "mesh.", "evaluate."), strict=True))
BOUNDED = (
    "seeds",
    "chunk_steps",
    "model.width",
    "optim.batch",
    "optim.epochs",
    "data.crop_padding",
    "evaluate.restarts",
)
NUMBERS = ["True", "'3'", "None", "[3]", "(3,)", "float('nan')", "-1", "-0.5"]
WRONG = {  # of a field by its annotation, as Python code
    "str": ["3", "None", "True", "('a',)", "['a']", "float('nan')", "b'a'", "{}", "0.5", "-1"],
    "bool": ["0", "1", "None", "'yes'", "(True,)", "[]", "0.0", "float('nan')", "-1", "'True'"],
    "int": [*NUMBERS, "2.5", "2.0", "10**12"],
    "float": [*NUMBERS, "float('inf')", "10**400"],
    "tuple[int, ...]": [
        "3",
        "'3'",
        "None",
        "[3]",
        "(3.5,)",
        "('a',)",
        "(None,)",
        "(True,)",
        "(-1,)",
        "(float('nan'),)",
    ],
    "tuple[float, ...]": [
        "0.1",
        "1",
        "None",
        "[0.1]",
        "('a',)",
        "(None,)",
        "(True,)",
        "(-1.0,)",
        "(float('nan'),)",
        "()",
    ],
    "tuple[str, ...]": ["'raw'", "3", "None", "['raw']", "(3,)", "(None,)", "()", "(b'a',)", "(('a',),)", "{'a'}"],
}
WRONG |= {
    kind.__name__: ["3", "None", "{}", "'a'", "(1,)", "[]", "True", "0.5", "object()", "Config"] for kind in KINDS
}
WRONG |= {
    str(field.type).replace("typing.", ""): ["'float64'", "None", "3", "True", "('float32',)", "''", "['float32']"]
    for kind in KINDS
    for field in dataclasses.fields(kind)
    if get_origin(field.type) is Literal
}


def wrong_values():
    """The field that is wrong, by the Python code that makes a config with it."""
    cases = {}
    for kind in KINDS:
        for field in dataclasses.fields(kind):
            annotation = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
            annotation = annotation if annotation in WRONG else str(field.type).replace("typing.", "")
            name = f"{PREFIX[kind]}{field.name}"
            for value in WRONG[annotation]:
                if value == "10**12" and name not in BOUNDED:
                    continue
                cases[f"{kind.__name__}({field.name}={value})"] = name
    return cases


def test_every_field_refuses_other_types_and_ranges_when_the_config_is_made():
    """In a process of its own: here, beartype would refuse them first."""
    cases = wrong_values()
    assert {name.split("(")[1].split("=")[0] for name in cases} == {
        field.name for kind in KINDS for field in dataclasses.fields(kind)
    }
    program = "import json\nfrom ncjax.config import *\nfrom ncjax.errors import UserError\nsaid = {}\n"
    program += f"for case in {list(cases)!r}:\n    try: eval(case); said[case] = None\n"
    program += "    except UserError as error: said[case] = str(error)\nprint(json.dumps(said))"
    said = json.loads(run_alone(program))
    for case, name in cases.items():
        assert said[case] is not None, case
        assert said[case].startswith(f"{name} is "), (case, said[case])
        assert "but must be" in said[case]
        assert "\n" not in said[case]


def run_alone(program):
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def test_values_of_another_type_in_a_config_file_are_named(tmp_path):
    cases = {
        "Config(seeds=2.5)": "seeds is 2.5, but must be a whole number",
        "Config(labels='mod:5')": "labels is 'mod:5', but must be texts in a tuple, such as ('mod:5',)",
        "Config(optim=OptimConfig(lr=0.1))": "optim.lr is 0.1, but must be numbers in a tuple, such as (0.1,)",
        "Config(optim=OptimConfig(lr=[0.1]))": "optim.lr is [0.1], but must be numbers in a tuple",
        "Config(optim=OptimConfig(dtype='float64'))": "optim.dtype is 'float64', but must be float32 or bfloat16",
        "Config(data=DataConfig(path=None))": "data.path is None, but must be text",
    }
    program = "from pathlib import Path; from ncjax.config import load_config; from ncjax.errors import UserError\n"
    for number, case in enumerate(cases):
        path = tmp_path / f"{number}.py"
        path.write_text(f"from ncjax.config import *\ndef get_config(): return {case}")
        program += f"try: load_config(Path({str(path)!r}))\nexcept UserError as error: print(error)\n"
    for line, message in zip(run_alone(program).splitlines(), cases.values(), strict=True):
        assert line.startswith(f"config file {tmp_path}/")
        assert message in line


def test_names_are_left_to_the_tables_that_resolve_them():
    config = Config(model=ModelConfig(name="mine"), data=DataConfig(source="mine"), optim=OptimConfig(schedule="mine"))
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise RuntimeError('boom')", "boom"),
        ("def get_config(): return 3", "returns int"),
        ("x = 1", "get_config"),
        ("def get_config(:", "SyntaxError"),
        (f"{IMPORT}; get_config = lambda: Config(seeds=0)", "seeds is 0, but must be from 1 to 100000"),
    ],
)
def test_broken_config_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_config(path)
    assert "broken.py" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sedes": 3}, "config: unknown field sedes"),
        ({"seeds": "3"}, "config: seeds is '3', but must be a whole number"),
        ({"optim": 3}, "config: optim is 3, but must be an object"),
        ({"optim": {"schedule": 1}}, "config: optim.schedule is 1, but must be text"),
        ({"optim": {"dtype": "float64"}}, "config: optim.dtype is 'float64', but must be float32 or bfloat16"),
        ({"optim": {"lr": ["a"]}}, "config: optim.lr[0] is 'a', but must be a number"),
        ({"optim": {"lr": "a"}}, "config: optim.lr is 'a', but must be a list"),
        ({"optim": {"momentum": 2.0}}, "config: optim.momentum is 2.0, but must be from 0 to below 1"),
    ],
)
def test_a_dict_that_is_no_config_is_refused(content, message):
    with pytest.raises(UserError) as error:
        from_dict(content)
    assert message in str(error.value)


def test_a_config_of_an_earlier_version_gets_the_defaults_of_newer_fields():
    content = json.loads(json.dumps(to_dict(Config(seeds=3))))
    del content["evaluate"]["layers"], content["model"]["dense_blocks"]
    assert from_dict(content) == Config(seeds=3)


def test_the_older_name_of_the_precision_is_read_and_never_written():
    for written, precision in (("float32", "float32"), ("bfloat16", "bfloat16")):
        optim = OptimConfig(dtype=written)
        assert optim == OptimConfig(precision=precision)
        assert dataclasses.replace(optim, dtype="bfloat16").precision == "bfloat16"
        assert from_dict({"optim": {"dtype": written}}) == Config(optim=optim)
        assert "dtype" not in to_dict(Config(optim=optim))["optim"]
        assert to_dict(Config(optim=optim))["optim"]["precision"] == precision
    assert from_dict(to_dict(Config(optim=OptimConfig(precision="tf32")))).optim.precision == "tf32"
    with pytest.raises(UserError, match=r"optim\.precision is 'half', but must be float32 or tf32 or bfloat16"):
        from_dict({"optim": {"precision": "half"}})
