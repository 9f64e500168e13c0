# SPDX-License-Identifier: Apache-2.0
"""A real process, killed for real after 7 of 20 steps, goes on and ends like one that was left alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncjax.features import load_features

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--labels mod:5 fine --seeds 1 --model.width 4 --optim.epochs 20 --checkpoint-epochs 1 --evaluate.epochs 7 "
    "--data.train-examples 64 --data.test-examples 64 --data.crop-padding 1 --data.flip"
)
DIES_AT_STEP_7 = """
import os, signal
from ncjax.train import checkpoint

save = checkpoint.save

def save_and_die(checkpoints, state):
    save(checkpoints, state)
    if int(state.step) == 7:
        {wait}
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save = save_and_die
"""


def train(workdir: Path, before: str = "") -> int:
    program = f"{before}\nfrom ncjax.cli import main\nmain()"
    arguments = ["train", str(ROOT / "configs" / "digits_demo.py"), "--workdir", str(workdir), *OPTIONS.split()]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, check=False
    ).returncode


def records(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "wall_secs"} for line in lines]


def last_state(workdir: Path) -> list[np.ndarray]:
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore((workdir / "checkpoints" / "20" / "default").absolute())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert train(workdir) == 0
    return workdir


@pytest.mark.parametrize("wait", ["checkpoints.wait_until_finished()", "pass"], ids=["written", "while writing"])
def test_killed_run_equals_an_undisturbed_one_bit_for_bit(undisturbed: Path, tmp_path: Path, wait: str) -> None:
    assert train(tmp_path, DIES_AT_STEP_7.format(wait=wait)) == -signal.SIGKILL
    assert not (tmp_path / "checkpoints" / "20").exists()
    assert len(records(tmp_path)) == 7
    assert train(tmp_path) == 0
    assert records(tmp_path) == records(undisturbed)
    assert [record["step"] for record in records(tmp_path)] == list(range(1, 21))
    for ours, theirs in zip(last_state(tmp_path), last_state(undisturbed), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for epoch in (7, 20):
        pairs = zip(load_features(tmp_path, epoch), load_features(undisturbed, epoch), strict=True)
        for ours, theirs in pairs:
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
