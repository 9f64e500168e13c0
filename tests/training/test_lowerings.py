# SPDX-License-Identifier: Apache-2.0
"""The choice of lowerings: measured once by one process, kept, used again on resume; on a fake accelerator."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.features.run import Run
from ncjax.models import layers
from ncjax.ops import lowering_times
from ncjax.ops.member_conv import conv2d_accelerator
from ncjax.pipeline import train
from ncjax.training import lowerings
from ncjax.training.loop import fit, prepare
from ncjax.training.lowerings import cases_of, choose_lowerings, kept_lowerings, members_that_fit
from ncjax.training.state import init_state
from tests.runs import command, ended, records, start_several


class Device:
    """A table of times, the same for every convolution; it counts what is measured."""

    def __init__(self):
        self.times = {"patches": 1.0, "side_by_side": 2.0, "winograd": 3.0, "sequential": 4.0, "grouped": 5.0}
        self.measured = 0

    def milliseconds(self, case, lowering):
        self.measured += 1
        return self.times[lowering]


@pytest.fixture
def device(monkeypatch, tmp_path):
    """Convolutions as accelerators have them, and a user's cache of this test alone."""
    found = Device()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(layers, "conv2d", lambda x, kernel, *, stride=1: conv2d_accelerator(x, kernel, stride))
    monkeypatch.setattr(lowerings, "is_accelerated", lambda: True)
    monkeypatch.setattr(lowering_times, "milliseconds", found.milliseconds)
    return found


@pytest.fixture
def four(config):
    return dataclasses.replace(config, seeds=4, model=ModelConfig(name="cnn", width=4))


def chosen(run):
    return {name for _, name in run.spec.lowerings}


def test_nothing_is_chosen_on_cpus(four, dataset, tmp_path):
    run = prepare(four, dataset)
    assert choose_lowerings(run, tmp_path) is run
    assert kept_lowerings(run, tmp_path) is run
    assert list(tmp_path.iterdir()) == []


def test_the_choice_is_the_fastest_and_is_kept_and_used_again(device, four, dataset, tmp_path):
    workdir, run = tmp_path / "run", prepare(four, dataset)
    workdir.mkdir()
    first = choose_lowerings(run, workdir)
    assert chosen(first) == {"patches"}
    assert len(first.spec.lowerings) == 3  # a network of three convolutions
    assert device.measured >= 3 * 4
    content = json.loads((workdir / "lowerings.json").read_text())
    assert content["convolutions"] == dict(first.spec.lowerings)
    assert content["at_once"] == 0
    device.times["grouped"] = 0.1
    before = device.measured
    assert choose_lowerings(run, workdir).spec == first.spec
    assert kept_lowerings(run, workdir).spec == first.spec
    assert device.measured == before


def test_another_run_finds_the_times_in_the_users_cache(device, four, dataset, tmp_path):
    run = prepare(four, dataset)
    first, before = choose_lowerings(run, None), device.measured
    device.times["grouped"] = 0.1
    assert choose_lowerings(run, None).spec == first.spec
    assert device.measured == before
    path = lowerings.cache_file(jax.devices()[0].device_kind)
    path.write_text("{")
    assert chosen(choose_lowerings(run, None)) == {"grouped"}
    assert device.measured == 2 * before


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"convolutions": "sequential"}, "sequential"), ({"convolutions": "table"}, "grouped"),
     ({"deterministic": True}, "grouped"), ({"deterministic": True, "convolutions": "patches"}, "grouped")],
)  # fmt: skip
def test_a_choice_of_the_users_and_the_table_need_no_measurement(change, expected, device, four, dataset):
    run = choose_lowerings(prepare(dataclasses.replace(four, **change), dataset), None)
    assert chosen(run) == {expected}
    assert device.measured == 0


def test_where_the_users_choice_does_not_fit_the_table_serves(device, four, dataset):
    found = choose_lowerings(prepare(dataclasses.replace(four, convolutions="winograd"), dataset), None)
    assert chosen(found) == {"winograd", "grouped"}  # two of the three have a stride


def test_damaged_choices_are_one_line(device, four, dataset, tmp_path):
    (tmp_path / "lowerings.json").write_text('{"device": "x", "at_once": "all"}')
    with pytest.raises(UserError, match=r"lowerings\.json does not fit: at_once is 'all', but must be a whole number"):
        choose_lowerings(prepare(four, dataset), tmp_path)


def test_every_process_takes_the_choice_of_the_main_one(device, four, dataset, monkeypatch, tmp_path):
    """As seen by another process, which has measured nothing and must not write."""
    ours = choose_lowerings(prepare(four, dataset), None)
    sent = iter([[0], [lowerings.NAMES.index(name) for _, name in ours.spec.lowerings]])
    monkeypatch.setattr(lowerings, "is_main_process", lambda: False)
    monkeypatch.setattr(lowerings, "gather_each", lambda own: np.array([next(sent), own], np.int32))
    device.times["grouped"] = 0.1
    before = device.measured
    assert choose_lowerings(prepare(four, dataset), None).spec == ours.spec
    assert device.measured == before


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["patches", "side_by_side"])
def test_a_training_has_the_same_numbers_with_another_lowering(lowering, device, four, dataset, tmp_path):
    four = dataclasses.replace(four, optim=dataclasses.replace(four.optim, lr=(0.002,), epochs=1))
    lines = []
    for name in ("grouped", lowering):
        (tmp_path / name).mkdir()
        run = choose_lowerings(prepare(dataclasses.replace(four, convolutions=name), dataset), tmp_path / name)
        fit(run, tmp_path / name, lambda epoch, state: None)
        lines.append(records(tmp_path / name)[-1])
    for metric in ("train_loss", "test_loss"):
        ours, right = (list(line[metric].values()) for line in lines)
        np.testing.assert_allclose(ours, right, atol=1e-5)


def test_members_are_taken_in_parts_that_fit_the_memory(device, four, dataset, monkeypatch):
    run = prepare(four, dataset)
    alone = cases_of(run, dataclasses.replace(run.spec, at_once=1))
    assert {case.members for case in alone} == {1}
    assert len(alone) == 3
    activations = sum(4 * (case.batch * case.height * case.width * case.channels + case.outputs) for case in alone)
    state = init_state(run.spec, run.ensemble)
    held = sum(a.nbytes for a in jax.tree.leaves((run.images, run.ensemble, state, state)))
    held += 4 * (2 * 4 * 16 * dataset.train.images[0].size + 3 * 4 * 160)  # batches and orders of four members
    for memory, at_once in ((10**12, 0), (1, 1), ((held + 2.5 * activations) / 0.8, 2)):
        statistics = SimpleNamespace(memory_stats=lambda memory=memory: {"bytes_limit": memory})
        monkeypatch.setattr(jax, "local_devices", lambda statistics=statistics: [statistics])
        assert members_that_fit(run) == at_once


@pytest.mark.slow
def test_members_in_parts_have_the_numbers_of_all_at_once(four, dataset, tmp_path):
    run = prepare(dataclasses.replace(four, optim=dataclasses.replace(four.optim, epochs=1)), dataset)
    losses = []
    for parts in (0, 3):
        (tmp_path / str(parts)).mkdir()
        in_parts = dataclasses.replace(run, spec=dataclasses.replace(run.spec, at_once=parts))
        fit(in_parts, tmp_path / str(parts), lambda epoch, state: None)
        losses.append(list(records(tmp_path / str(parts))[-1]["train_loss"].values()))
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)


@pytest.mark.parametrize(
    ("members", "most", "expected"), [(45, 45, 0), (45, 50, 0), (45, 20, 15), (945, 100, 63), (47, 20, 20), (16, 1, 1)]
)
def test_parts_are_even_where_that_costs_little(members, most, expected):
    assert lowerings._even(members, most) == expected


@pytest.mark.slow
def test_a_run_goes_on_with_the_lowerings_that_it_began_with(device, four, dataset, tmp_path):
    """The device is measured anew, and differently, in between."""
    four = dataclasses.replace(four, checkpoint_epochs=1, seeds=2, optim=dataclasses.replace(four.optim, epochs=2))

    class Interrupted(Exception):
        pass

    def interrupt(epoch, run):
        raise Interrupted

    straight = train(four, dataset, workdir=tmp_path / "straight")
    with pytest.raises(Interrupted):
        train(four, dataset, workdir=tmp_path / "resumed", callbacks=[interrupt])
    device.times["grouped"] = 0.1
    lowerings.cache_file(jax.devices()[0].device_kind).unlink()
    resumed = train(four, dataset, workdir=tmp_path / "resumed")
    assert records(tmp_path / "resumed") == records(tmp_path / "straight")
    for ours, right in zip(*(jax.tree.leaves(run.state()) for run in (resumed, straight)), strict=True):
        np.testing.assert_array_equal(ours, right)
    features = Run.open(tmp_path / "resumed", dataset).features()
    np.testing.assert_array_equal(features.test.logits, straight.features().test.logits)


FAKE = """
import os
from ncjax.models import layers
from ncjax.ops import lowering_times
from ncjax.ops.member_conv import conv2d_accelerator
from ncjax.training import lowerings

layers.conv2d = lambda x, kernel, *, stride=1: conv2d_accelerator(x, kernel, stride)
lowerings.is_accelerated = lambda: True
best = {"0": "patches", "1": "sequential"}[os.environ["NCJAX_PROCESS"]]
lowering_times.milliseconds = lambda case, lowering: 1.0 if lowering == best else 2.0
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_that_would_measure_differently_have_the_same_programs(tmp_path):
    options = ("--model.name", "cnn", "--model.width", 4, "--seeds", 4, "--labels", "mod:5", "--mesh.member", 2)
    processes = start_several(
        command("train", tmp_path / "run", *options),
        processes=2,
        devices=1,
        before=FAKE,
        XDG_CACHE_HOME=tmp_path / "cache",
    )
    for code, err in ended(processes, timeout=500):
        assert code == 0, err
    content = json.loads((tmp_path / "run" / "lowerings.json").read_text())
    assert set(content["convolutions"].values()) == {"patches"}
    assert all(text.startswith("2 x ") for text in content["convolutions"])  # four members on two devices
    assert len(records(tmp_path / "run")) == 2
