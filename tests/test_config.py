# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
from pathlib import Path

import pytest

from ncjax.config import Config, DataConfig, EvaluateConfig, OptimConfig, check_config, from_dict, load_config, to_dict
from ncjax.errors import UserError

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith(("__", "theory_")))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_is_possible_and_survives_json(path):
    config = load_config(path)
    check_config(config)
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
    ("change", "field"),
    [
        ({"seeds": 0}, "seeds"),
        ({"labels": ()}, "labels"),
        ({"chunk_steps": -1}, "chunk_steps"),
        ({"optim": OptimConfig(lr=())}, "optim.lr"),
        ({"optim": OptimConfig(lr=(float("nan"),))}, "optim.lr"),
        ({"optim": OptimConfig(weight_decay=(-1.0,))}, "optim.weight_decay"),
        ({"optim": OptimConfig(momentum=1.0)}, "optim.momentum"),
        ({"optim": OptimConfig(epochs=0)}, "optim.epochs"),
        ({"evaluate": EvaluateConfig(epochs=(500,))}, "evaluate.epochs"),
        ({"evaluate": EvaluateConfig(variants=())}, "evaluate.variants"),
        ({"data": DataConfig(crop_padding=-1)}, "data.crop_padding"),
    ],
)
def test_impossible_values_name_their_field_in_one_line(change, field):
    with pytest.raises(UserError, match=field) as error:
        check_config(dataclasses.replace(Config(), **change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise RuntimeError('boom')", "boom"),
        ("def get_config(): return 3", "returns int"),
        ("x = 1", "get_config"),
        ("def get_config(:", "SyntaxError"),
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
        ({"sedes": 3}, "unknown field sedes"),
        ({"seeds": "3"}, "config.seeds"),
        ({"optim": 3}, "config.optim"),
        ({"optim": {"schedule": "linear"}}, "config.optim.schedule"),
        ({"optim": {"lr": ["a"]}}, "config.optim.lr"),
    ],
)
def test_config_of_another_version_is_refused(content, message):
    with pytest.raises(UserError, match=message):
        from_dict(content)
