# SPDX-License-Identifier: Apache-2.0
import subprocess
from importlib.metadata import version

import jax
import pytest

from ncjax.distributed.environment import PACKAGES, environment


def test_versions_commit_and_devices():
    found = environment()
    assert set(found.versions) == {"python", *PACKAGES}
    assert found.versions["jax"] == jax.__version__
    assert found.versions["numpy"] == version("numpy")
    assert found.device.startswith("8 x cpu (cpu), ")
    assert found.commit is None or set(found.commit.removesuffix("-dirty")) <= set("0123456789abcdef")


@pytest.mark.parametrize("failure", ["no git", "no repository"])
def test_without_git_the_commit_is_unknown(monkeypatch, failure):
    def run(command, **_):
        if failure == "no git":
            raise FileNotFoundError("git")
        return subprocess.CompletedProcess(command, 128, "", "not a repository")

    monkeypatch.setattr(subprocess, "run", run)
    assert environment().commit is None
