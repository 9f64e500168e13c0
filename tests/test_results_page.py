# SPDX-License-Identifier: Apache-2.0
"""docs/results.md: each of its tables is what the raw log beside it says."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from ncjax.config import Config, MeshConfig, from_dict, load_config
from ncjax.report import summary
from ncjax.report.collapse import collapse_summary

ROOT = Path(__file__).parents[1]
LOGS = sorted((ROOT / "docs" / "logs").iterdir())
PAGE = (ROOT / "docs" / "results.md").read_text()


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_tables_are_those_of_the_raw_log(log: Path) -> None:
    for table in summary(log).split("\n\n"):
        assert table in PAGE
    written = json.loads((log / "config.json").read_text())
    assert written["command"] in PAGE
    assert f"(logs/{log.name})" in PAGE


def test_every_log_that_is_named_is_there() -> None:
    assert set(re.findall(r"\(logs/(\w+)\)", PAGE)) == {log.name for log in LOGS}


@pytest.mark.parametrize("name", ["coarse_cifar10_cpu", "coarse_fashion", "digits_demo"])
def test_runs_of_a_config_are_of_the_config_as_it_is(name: str) -> None:
    written = json.loads((ROOT / "docs" / "logs" / name / "config.json").read_text())["config"]
    assert deciding(from_dict(written)) == deciding(load_config(ROOT / "configs" / f"{name}.py"))


def deciding(config: Config) -> Config:
    """What decides the numbers: the config without when it is checkpointed, what is watched on the way, and where."""
    evaluate = dataclasses.replace(config.evaluate, observe_epochs=0, observe_images=1)
    kept = {"checkpoint_epochs": 0, "checkpoint_minutes": 0.0}
    return dataclasses.replace(config, evaluate=evaluate, mesh=MeshConfig(), **kept)


def test_tables_of_the_pytorch_features_are_those_of_the_raw_results() -> None:
    found = json.loads((ROOT / "docs" / "features" / "coarse_cifar10_features.json").read_text())
    assert collapse_summary(found) in PAGE
    assert found["command"] in PAGE
