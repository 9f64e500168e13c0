# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from ncjax.config import EvaluateConfig, ModelConfig
from ncjax.pipeline import train


@pytest.fixture(scope="module")
def small_config():
    """Two label maps of a small network, whose features after epochs 0, 1 and 2 are kept, with a stage."""

    def make(config):
        return dataclasses.replace(
            config,
            model=ModelConfig(name="mlp", width=8),
            optim=dataclasses.replace(config.optim, epochs=2),
            labels=("mod:5", "fine"),
            evaluate=EvaluateConfig(epochs=(0, 1), layers=("first", "features"), restarts=2),
            checkpoint_epochs=1,
        )

    return make


@pytest.fixture
def trained(config, dataset, small_config, tmp_path):
    """A finished run on arrays from memory."""
    return train(small_config(config), dataset, workdir=tmp_path / "run", command="ncjax train")
