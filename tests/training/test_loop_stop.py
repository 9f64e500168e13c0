# SPDX-License-Identifier: Apache-2.0
"""A stop waits for the end of a chunk of steps, so slow chunks become shorter, and nothing else changes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from ncjax.training import loop
from ncjax.training.loop import fit, prepare
from tests.runs import command, ended, records, start_several, state_of


def test_slow_chunks_become_shorter_and_fast_ones_longer_and_change_no_bit(config, dataset, tmp_path, monkeypatch):
    quick = dataclasses.replace(config, model=dataclasses.replace(config.model, name="mlp", width=8))
    undisturbed = fit(prepare(quick, dataset), tmp_path / "a", lambda epoch, state: None)
    lengths, advance = [], loop._advance

    def noted(run, state, program, at, steps, *rest):
        lengths.append(steps)
        return advance(run, state, program, at, steps, *rest)

    def fast_for_an_epoch(epoch, state):
        monkeypatch.setattr(loop, "CHUNK_SECS", 1e6 if epoch == 1 else 0.0)

    monkeypatch.setattr(loop, "_advance", noted)
    paced = fit(prepare(quick, dataset), tmp_path / "b", fast_for_an_epoch)
    assert lengths == [*[1] * 10, *(2, 4, 4), *(2, *[1] * 8)]  # ten steps in each epoch
    for one, other in zip(jax.tree.leaves(undisturbed.state), jax.tree.leaves(paced.state), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_processes_of_which_one_is_slow_agree(tmp_path: Path) -> None:
    """Without agreement they would compute different numbers of steps, and wait for each other for ever."""
    options = ["--mesh.data", 0]
    slow = "import os\nimport ncjax.training.loop as l\nl.CHUNK_SECS = 4.0 * (os.environ['NCJAX_PROCESS'] == '0')"
    for name, before in {"a": "", "b": slow}.items():
        pair = start_several(command("train", tmp_path / name, *options), processes=2, devices=1, before=before)
        for code, err in ended(pair, timeout=900):
            assert code == 0, err
    assert records(tmp_path / "a") == records(tmp_path / "b")
    for one, other in zip(state_of(tmp_path / "a", 10), state_of(tmp_path / "b", 10), strict=True):
        np.testing.assert_array_equal(one, other)
