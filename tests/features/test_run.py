# SPDX-License-Identifier: Apache-2.0
"""Runs are read back: members, metrics, features, states; nothing in a work directory is changed."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.features.extraction import extract_features
from ncjax.features.run import Run
from ncjax.pipeline import train

NAMES = ("mod:5/lr=0.05/wd=5e-4/seed=0", "fine/lr=0.05/wd=5e-4/seed=0")


def content(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_opened_run_is_the_trained_one_and_reading_changes_nothing(trained, dataset):
    before = content(trained.workdir)
    run = Run.open(trained.workdir)
    assert run == trained
    assert tuple(member.name for member in run.members) == NAMES
    assert run.epochs == (0, 1, 2)
    assert run.last_epoch == 2
    assert run.features().epoch == 2
    with_data = dataclasses.replace(run, in_memory=dataset)
    state = with_data.state()
    assert int(state.step) == 20
    assert int(with_data.state(1).step) == 10
    assert int(with_data.state(0).step) == 0
    extract_features(with_data, layers=("second",))
    assert content(trained.workdir) == before
    assert {path.name for path in trained.workdir.iterdir()} == {
        *(
            "config.json",
            "data.json",
            "members.json",
            "metrics.jsonl",
            "starts.jsonl",
            "checkpoints",
            "features",
            "results",
            ".lock",
        )
    }


def test_metrics_are_points_of_named_members(trained):
    points = trained.metrics()
    lines = [json.loads(line) for line in (trained.workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {(p.member, p.epoch): p.value for p in points if p.metric == "test_loss"}
    assert losses == {(name, line["epoch"]): line["test_loss"][name] for line in lines for name in NAMES}
    assert len(losses) == 4


def test_metrics_of_an_earlier_version_get_the_names_of_the_members(trained):
    path = trained.workdir / "metrics.jsonl"
    line = {"step": 10, "epoch": 1, "wall_secs": 0.1, "lr": [0.1, 0.1], "test_loss": [1.5, None]}
    path.write_text(json.dumps(line) + "\n")
    found = [(p.member, p.value) for p in trained.metrics() if p.metric == "test_loss"]
    assert found == [(NAMES[0], 1.5), (NAMES[1], None)]


def test_what_was_not_kept_is_named(trained, dataset):
    run = Run.open(trained.workdir)
    with pytest.raises(UserError, match=r"no features of epoch 7 .*kept: 0, 1, 2"):
        run.features(7)
    with pytest.raises(UserError, match="trained on arrays from memory"):
        run.state()
    with pytest.raises(UserError, match="cannot read"):
        Run.open(trained.workdir / "elsewhere")
    with pytest.raises(UserError, match="checkpoint"):
        dataclasses.replace(run, in_memory=dataset).state(7)


def test_run_without_a_work_directory_lives_in_a_temporary_one(dataset, small_config):
    run = train(small_config, dataset)
    folder = run.workdir
    assert run.features().train.layers["features"].shape == (2, 160, 8)
    del run
    assert not folder.exists()


def test_state_is_that_of_all_members_on_one_device(trained):
    state = trained.state()
    leaves = jax.tree.leaves(state.members.params)
    assert {leaf.shape[0] for leaf in leaves} == {2}
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_arrays_from_memory_are_given_again_and_compared(trained, dataset):
    assert int(Run.open(trained.workdir, dataset).state().step) == 20
    with pytest.raises(UserError, match=r"give the data set again: Run\.open\(workdir, dataset\)$"):
        Run.open(trained.workdir).state()
    other = dataclasses.replace(dataset, fingerprint="other", class_names=dataset.class_names[::-1])
    with pytest.raises(UserError, match="holds a run on other data"):
        Run.open(trained.workdir, other)
