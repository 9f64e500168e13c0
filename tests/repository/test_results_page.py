# SPDX-License-Identifier: Apache-2.0
"""docs/results.md: each of its tables is what the raw log beside it says."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from ncjax.config import Config, MeshConfig, load_config
from ncjax.report import evaluation_summary, run_summary
from ncjax.reproduce.page import outdated
from ncjax.results import Evaluation
from ncjax.storage.workdir import read_config, read_run_file

ROOT = Path(__file__).parents[2]
LOGS = sorted((ROOT / "docs" / "logs").iterdir())
PAGE = (ROOT / "docs" / "results.md").read_text()
TEMPLATE = ROOT / "docs" / "results.md.j2"


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_tables_are_those_of_the_raw_log(log: Path) -> None:
    for table in run_summary(log).split("\n\n"):
        assert table in PAGE
    assert read_run_file(log).command in PAGE
    assert f"(logs/{log.name})" in PAGE


def test_every_log_that_is_named_is_there() -> None:
    assert set(re.findall(r"\(logs/([\w-]+)\)", PAGE)) == {log.name for log in LOGS}


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


def test_page_and_figures_are_what_one_command_makes_of_the_raw_files() -> None:
    """Where this fails: `ncjax reproduce --page docs/results.md.j2`, and look at what has changed."""
    assert outdated(TEMPLATE) == ()


@pytest.mark.parametrize(("log", "metric", "files"), [
    ("h200_cifar10_jpeg", "clp", {"results.md", "recovery.json", "recovery.svg"}),
    ("coarse_cifar10_cpu", "cluster_accuracy", {"results.md", "collapse.json", "collapse.svg"}),
    ("compare_digits", "probe", {"results.md"}),
])  # fmt: skip
def test_a_changed_raw_number_makes_the_page_outdated(tmp_path: Path, log: str, metric: str, files: set[str]) -> None:
    docs = tmp_path / "docs"
    for name in ("logs", "features", "figures"):
        shutil.copytree(ROOT / "docs" / name, docs / name)
    for path in (TEMPLATE, TEMPLATE.with_suffix("")):
        shutil.copy(path, docs / path.name)
    path = docs / "logs" / log / "results" / "evaluation.json"
    content = json.loads(path.read_text())
    row = next(row for row in content["rows"] if row["kind"] == "trained" and row["epoch"])
    found = [one for one in row["measurements"] if one["metric"] == metric]
    for one in found:
        one["value"] += 0.01
    assert found
    path.write_text(json.dumps(content))
    assert set(outdated(docs / TEMPLATE.name)) == files
