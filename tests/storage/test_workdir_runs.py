# SPDX-License-Identifier: Apache-2.0
"""Two runs in one work directory, and one run that goes on."""

import dataclasses

import pytest

from ncjax.config import Config, MeshConfig
from ncjax.errors import UserError
from ncjax.results import Environment
from ncjax.storage.workdir import locked, open_workdir

HERE = Environment(versions={}, commit=None, device="")


def test_second_run_in_a_work_directory_is_refused_until_the_first_ends(tmp_path):
    with (
        locked(tmp_path / "run"),
        pytest.raises(UserError, match=r"is in use by process \d+ on "),
        locked(tmp_path / "run"),
    ):
        pass
    with locked(tmp_path / "run"):
        pass


def test_run_goes_on_with_another_mesh_but_not_with_another_batch(tmp_path):
    config = Config()
    open_workdir(tmp_path, config, "a", HERE)
    open_workdir(tmp_path, dataclasses.replace(config, mesh=MeshConfig(data=8), checkpoint_minutes=1.0), "b", HERE)
    with pytest.raises(UserError, match="chunk_steps: 50 there, 7 now"):
        open_workdir(tmp_path, dataclasses.replace(config, chunk_steps=7), "c", HERE)
