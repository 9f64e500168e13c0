# SPDX-License-Identifier: Apache-2.0
"""What is written when a run grows: a kill between any two writes leaves a run, and the next start goes on."""

import dataclasses
import os
import shutil

import numpy as np
import pytest

from ncjax.config import to_dict
from ncjax.distributed.environment import environment
from ncjax.errors import UserError
from ncjax.features.growth import plan_growth, write_plan
from ncjax.features.run import Run
from ncjax.features.store import describe_members
from ncjax.results import TrainingSummary
from ncjax.storage.atomic import write_json
from ncjax.storage.workdir import read_config, read_run_file, run_id
from ncjax.typed_json import unstructure


@pytest.fixture
def wanted(trained, dataset):
    """The config of `trained` with a third label map, and the members of it."""
    config = dataclasses.replace(trained.config, labels=("mod:5", "mod:2", "fine"))
    return config, describe_members(config, dataset, from_memory=True)


def write(workdir, wanted, dataset):
    config, members = wanted
    plan = plan_growth(workdir, config, members, dataset)
    write_plan(workdir, config, plan, members, dataset, "ncjax train more", environment())


def kill_at(monkeypatch, number):
    """The process ends before its write of this number; later ones work again."""
    made, replace = [], os.replace

    def replace_or_die(draft, path):
        made.append(path)
        if len(made) == number:
            raise KeyboardInterrupt
        replace(draft, path)

    monkeypatch.setattr("ncjax.storage.atomic.os.replace", replace_or_die)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_kill_between_any_two_writes_is_harmless(trained, wanted, dataset, monkeypatch, number):
    """The cohort gets config.json and members.json, then config.json of the run counts it."""
    before, run = read_run_file(trained.workdir), run_id(trained.workdir)
    kill_at(monkeypatch, number)
    if number < 4:
        with pytest.raises(KeyboardInterrupt):
            write(trained.workdir, wanted, dataset)
        assert read_run_file(trained.workdir) == before
        assert Run.open(trained.workdir) == trained
    write(trained.workdir, wanted, dataset)
    after = read_run_file(trained.workdir)
    assert after == dataclasses.replace(
        before, config=to_dict(wanted[0]), command="ncjax train more", cohorts=1, members=tuple(wanted[1].members)
    )
    opened = Run.open(trained.workdir)
    assert opened.config == wanted[0]
    assert tuple(opened.described.members) == tuple(wanted[1].members)
    assert [member.label_map.name for member in opened.parts[1].members] == ["mod:2"]
    assert read_config(opened.parts[1].workdir) == wanted[0]
    assert run_id(trained.workdir) == run != run_id(opened.parts[1].workdir)
    assert not opened.has_ended
    np.testing.assert_array_equal(opened.features(2).train.labels, trained.features(2).train.labels)
    assert opened.features(2).names == trained.features(2).names
    assert plan_growth(trained.workdir, *wanted, dataset).there == 2


def test_trained_cohort_that_config_json_does_not_count_is_left_alone(trained, wanted, dataset):
    config = (trained.workdir / "config.json").read_bytes()
    write(trained.workdir, wanted, dataset)
    (trained.workdir / "cohorts" / "1" / "checkpoints" / "5").mkdir(parents=True)
    (trained.workdir / "config.json").write_bytes(config)
    with pytest.raises(UserError, match=r"cohorts/1 holds checkpoints, but config\.json of the run does not count it"):
        write(trained.workdir, wanted, dataset)
    assert (trained.workdir / "cohorts" / "1" / "members.json").is_file()


def test_cohort_is_trained_by_its_run_alone(trained, wanted, dataset):
    write(trained.workdir, wanted, dataset)
    with pytest.raises(UserError, match=r"cohorts/1 is a cohort of .*run; give that work directory$"):
        plan_growth(trained.workdir / "cohorts" / "1", *wanted, dataset)


def test_order_of_the_members_on_disk_is_kept_when_that_of_the_config_changes(trained, dataset):
    config = dataclasses.replace(trained.config, labels=trained.config.labels[::-1])
    members = describe_members(config, dataset, from_memory=True)
    for _ in range(2):
        write(trained.workdir, (config, members), dataset)
        plan = plan_growth(trained.workdir, config, members, dataset)
        assert [tuple(part.members) for part in plan.parts] == [tuple(trained.described.members)]
    run = Run.open(trained.workdir)
    assert tuple(run.described.members) == tuple(trained.described.members)[::-1]
    np.testing.assert_array_equal(run.features(2).train.logits, trained.features(2).train.logits[::-1])
    assert plan_growth(trained.workdir, trained.config, trained.described, dataset).changed


def test_plan_that_is_no_longer_true_is_not_written(trained, wanted, dataset):
    config, members = wanted
    plan = plan_growth(trained.workdir, config, members, dataset)
    write(trained.workdir, wanted, dataset)
    with pytest.raises(UserError, match="was changed by another process; start again"):
        write_plan(trained.workdir, config, plan, members, dataset, "", environment())


@pytest.mark.parametrize("name", ["cohorts/1/members.json", "members.json"])
def test_grown_run_without_a_members_file_says_so(trained, wanted, dataset, name):
    write(trained.workdir, wanted, dataset)
    (trained.workdir / name).unlink()
    with pytest.raises(UserError, match=r"members\.json is missing"):
        Run.open(trained.workdir)


def test_config_that_names_other_members_than_are_there_is_refused(trained, wanted, dataset):
    write(trained.workdir, wanted, dataset)
    shutil.copy(trained.workdir / "members.json", trained.workdir / "cohorts" / "1" / "members.json")
    with pytest.raises(UserError, match=r"do not name the same members: mod:2/"):
        Run.open(trained.workdir)


def test_imported_weights_get_no_further_members(trained, wanted, dataset):
    summary = TrainingSummary(compile_secs=None, train_secs=None, imported=("from a.pt",), mean=(0.5,), std=(0.5,))
    write_json(trained.workdir / "results" / "training.json", unstructure(summary))
    with pytest.raises(UserError, match=r"labels: .*: its weights were imported, and how they were trained"):
        plan_growth(trained.workdir, *wanted, dataset)
    views = dataclasses.replace(trained.config.evaluate, variants=("raw",))
    config = dataclasses.replace(trained.config, evaluate=views)
    plan = plan_growth(trained.workdir, config, describe_members(config, dataset, from_memory=True), dataset)
    assert (len(plan.parts), plan.there, plan.changed) == (1, 1, True)


def test_label_map_whose_file_has_changed_is_refused(trained, wanted, dataset):
    config, members = wanted
    (name, *_) = members.members
    other = dataclasses.replace(members.members[name].label_map, super_class=(0,) * 10, merged=(0,) * 10)
    changed = dataclasses.replace(members.members[name], label_map=other)
    members = dataclasses.replace(members, members={**members.members, name: changed})
    with pytest.raises(UserError, match="gave the classes other labels"):
        plan_growth(trained.workdir, config, members, dataset)
