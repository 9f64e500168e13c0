# SPDX-License-Identifier: Apache-2.0
"""On accelerators the host reads one chunk of steps late: nothing waits, and nothing else changes; here on a CPU."""

import dataclasses
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from ncjax.config import ModelConfig
from ncjax.errors import Stopped, UserError
from ncjax.training import loop, reading
from ncjax.training.loop import fit, prepare
from tests.runs import records


def agree_on_four_steps(run, steps, secs, stop, due):
    """Chunks of the same length from the second on, whatever the machine."""
    del run, steps, secs
    return stop, due, 4


@pytest.fixture
def ahead(monkeypatch):
    monkeypatch.setattr(loop, "waits", lambda: False)
    monkeypatch.setattr(loop, "_agreed", agree_on_four_steps)


@pytest.fixture
def observed(config):
    """Three chunks an epoch, a look at collapse at the end of each."""
    evaluate = dataclasses.replace(config.evaluate, observe_epochs=1)
    return dataclasses.replace(config, model=ModelConfig(name="mlp", width=8), evaluate=evaluate, seeds=2)


def ignore(epoch, state):
    del epoch, state


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_lines_and_states_are_those_of_a_host_that_waits(observed, dataset, tmp_path, monkeypatch):
    found = {}
    for name, waits in (("waits", True), ("ahead", False)):
        monkeypatch.setattr(loop, "waits", lambda waits=waits: waits)
        (tmp_path / name).mkdir()
        found[name] = fit(prepare(observed, dataset), tmp_path / name, ignore)
    assert records(tmp_path / "ahead") == records(tmp_path / "waits")
    assert "nc1_fine" in records(tmp_path / "ahead")[-1]
    assert len(records(tmp_path / "ahead")) == 3
    assert_same(found["ahead"].state, found["waits"].state)


def test_each_chunk_is_read_after_the_next_one_was_given_to_the_device(ahead, observed, dataset, tmp_path, monkeypatch):
    events, compiled, to_host = [], loop._compile, reading.to_host

    def compile_and_log(run, state):
        programs = compiled(run, state)

        def step_chunk(*arguments):
            events.append("steps")
            return programs.step_chunk(*arguments)

        return programs._replace(step_chunk=step_chunk)

    monkeypatch.setattr(loop, "_compile", compile_and_log)
    monkeypatch.setattr(reading, "to_host", lambda tree: events.append("read") or to_host(tree))
    fit(prepare(observed, dataset), tmp_path, lambda epoch, state: events.append(f"epoch {epoch}"))
    epochs = [
        ["steps", "read", "read", "steps", "read", "steps", "read", f"epoch {epoch}"] for epoch in (2, 3)
    ]  # of the first chunk both the losses and the measures of the epoch before are read
    first = ["epoch 0", "steps", *["steps", "read"] * 3, "epoch 1"]  # its first chunk has one step
    assert events == [*first, *epochs[0], *epochs[1], "read", "read"]


def test_a_callback_finds_the_lines_of_all_epochs_before_its_own(ahead, observed, dataset, tmp_path):
    seen = []

    def look(epoch, state):
        seen.append(len(records(tmp_path)) if epoch > 1 else 0)
        return {"mine": {"a": float(np.asarray(state.step))}} if epoch else None

    fit(prepare(observed, dataset), tmp_path, look)
    assert seen == [0, 0, 1, 2]
    assert [record["mine"]["a"] for record in records(tmp_path)] == [10, 20, 30]


def test_a_stopped_run_has_its_lines_and_goes_on_bit_for_bit(ahead, observed, dataset, tmp_path, monkeypatch):
    (tmp_path / "straight").mkdir()
    (tmp_path / "stopped").mkdir()
    straight = fit(prepare(observed, dataset), tmp_path / "straight", ignore)
    asked = iter([False] * 4 + [True])

    @contextmanager
    def after_five_chunks():
        yield lambda: next(asked)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_requests", after_five_chunks)
        with pytest.raises(Stopped, match="stopped after step 14 of 30"):
            fit(prepare(observed, dataset), tmp_path / "stopped", ignore)
    assert len(records(tmp_path / "stopped")) == 1
    resumed = fit(prepare(observed, dataset), tmp_path / "stopped", ignore)
    assert records(tmp_path / "stopped") == records(tmp_path / "straight")
    assert_same(resumed.state, straight.state)


def test_a_column_that_is_taken_is_refused(ahead, observed, dataset, tmp_path):
    with pytest.raises(UserError, match="a callback gives 'train_loss', which is a column"):
        fit(prepare(observed, dataset), tmp_path, lambda epoch, state: {"train_loss": {}} if epoch else None)


def test_test_pass_and_look_are_compiled_before_the_first_step(observed, dataset, tmp_path):
    compiled, seen = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, secs, **kwargs: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    fit(prepare(observed, dataset), tmp_path, lambda epoch, state: seen.append(len(compiled)))
    assert seen[0] > 0
    assert seen[1] - seen[0] <= 4  # the factor of the schedule, and copies of numbers
    assert seen[1] == seen[2] == seen[3]
