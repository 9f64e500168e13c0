# SPDX-License-Identifier: Apache-2.0
"""docs/results.md: each of its tables is what the raw log beside it says."""

import dataclasses
import re
from pathlib import Path

import pytest

from ncjax.config import Config, MeshConfig, load_config
from ncjax.report import evaluation_summary, run_summary
from ncjax.results import Evaluation
from ncjax.storage.workdir import read_config, read_run_file

ROOT = Path(__file__).parents[2]
LOGS = sorted((ROOT / "docs" / "logs").iterdir())
PAGE = (ROOT / "docs" / "results.md").read_text()


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_tables_are_those_of_the_raw_log(log: Path) -> None:
    for table in run_summary(log).split("\n\n"):
        assert table in PAGE
    assert read_run_file(log).command in PAGE
    assert f"(logs/{log.name})" in PAGE


def test_every_log_that_is_named_is_there() -> None:
    assert set(re.findall(r"\(logs/(\w+)\)", PAGE)) == {log.name for log in LOGS}


@pytest.mark.parametrize("name", ["coarse_cifar10_cpu", "coarse_fashion", "digits_demo"])
def test_runs_of_a_config_are_of_the_config_as_it_is(name: str) -> None:
    written = read_config(ROOT / "docs" / "logs" / name)
    assert deciding(written) == deciding(load_config(ROOT / "configs" / f"{name}.py"))


def deciding(config: Config) -> Config:
    """What decides the numbers: the config without when it is checkpointed, what is watched on the way, and where.

    The images of a run may have been in another kind of files.
    """
    labels = config.evaluate.labels or config.labels[0]  # where it was written before it could be empty
    evaluate = dataclasses.replace(config.evaluate, observe_epochs=0, observe_images=1, labels=labels)
    kept = {"checkpoint_epochs": 0, "checkpoint_minutes": 0.0}
    data = dataclasses.replace(config.data, source="", path="")
    return dataclasses.replace(config, data=data, evaluate=evaluate, mesh=MeshConfig(), **kept)


def test_tables_of_the_pytorch_features_are_those_of_the_raw_results() -> None:
    path = ROOT / "docs" / "features" / "coarse_cifar10_features.json"
    found = Evaluation.from_json(path.read_text(), str(path))
    assert evaluation_summary(found) in PAGE
    assert found.provenance.command in PAGE
