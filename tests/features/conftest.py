# SPDX-License-Identifier: Apache-2.0
import dataclasses
import shutil

import pytest

from ncjax.config import Config, EvaluateConfig, ModelConfig, OptimConfig
from ncjax.pipeline import train
from tests.bars import bars

SMALL = Config(
    labels=("mod:5", "fine"),
    model=ModelConfig(name="mlp", width=8),
    optim=OptimConfig(lr=(0.05,), batch=16, epochs=2, schedule="cosine"),
    evaluate=EvaluateConfig(epochs=(0, 1), layers=("first", "features"), restarts=2),
    chunk_steps=4,
    checkpoint_epochs=1,
)  # two label maps of a small network, whose features after epochs 0, 1 and 2 are kept, with a stage


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    return train(SMALL, bars(), workdir=tmp_path_factory.mktemp("trained") / "run", command="ncjax train")


@pytest.fixture
def small_config():
    """The config of `trained`."""
    return SMALL


@pytest.fixture
def trained(trained_once, tmp_path):
    """A finished run on arrays from memory, in a folder of its own."""
    shutil.copytree(trained_once.workdir, tmp_path / "run")
    return dataclasses.replace(trained_once, workdir=tmp_path / "run")
