# SPDX-License-Identifier: Apache-2.0
"""Training with functions of one's own: what is written, who reads it, what is refused, and real kills."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncjax.config import LossConfig, ModelConfig
from ncjax.errors import UserError
from ncjax.evaluation.evaluator import evaluate
from ncjax.features.extraction import extract_features
from ncjax.features.run import Run
from ncjax.models import from_linen, from_nnx
from ncjax.pipeline import train
from tests.bars import bars
from tests.own import CONFIG, LinenNet, Net, last_layer
from tests.runs import ROOT, assert_same_features, ended, records

LAYERS = dataclasses.replace(CONFIG.evaluate, layers=("features", "inner"))
SHORT = dataclasses.replace(
    CONFIG, seeds=2, optim=dataclasses.replace(CONFIG.optim, epochs=1), evaluate=LAYERS, loss=LossConfig()
)


def half(step, total):
    return 0.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a network and a schedule of its own, and what its callback saw."""
    seen = []

    def callback(epoch, run):
        kernel = run.state().members.params["last"]["kernel"]
        features = extract_features(run, epoch=epoch)
        seen.append((epoch, kernel, features))
        return {"norm": np.linalg.norm(kernel, axis=(1, 2)), "epochs": epoch}

    run = train(
        SHORT,
        bars(),
        network=from_nnx(Net, classifier=last_layer),
        schedule=half,
        callbacks=(callback,),
        workdir=tmp_path_factory.mktemp("own") / "run",
    )
    return run, seen


def test_config_json_says_what_was_not_of_ncjax(trained):
    run, _ = trained
    config = json.loads((run.workdir / "config.json").read_text())["config"]
    assert (config["model"]["name"], config["optim"]["schedule"]) == ("own:Net", "own:half")
    assert (config["loss"]["name"], config["optim"]["name"]) == ("cross_entropy", "sgd")


def test_callback_sees_the_state_and_its_metrics_are_columns(trained):
    run, ((epoch, kernel, features),) = trained
    assert epoch == 1
    found = {(p.metric, p.member): p.value for p in run.metrics()}
    for index, member in enumerate(run.members):
        assert found["norm", member.name] == pytest.approx(np.linalg.norm(kernel[index]), rel=1e-5)
        assert found["epochs", member.name] == 1
        assert found["lr", member.name] == pytest.approx(0.025)
    np.testing.assert_allclose(features.train.layers["features"], run.features(1).train.layers["features"], atol=1e-6)


def test_layers_are_kept_by_name_with_the_classifier(trained):
    features = trained[0].features()
    assert {name: rows.shape for name, rows in features.train.layers.items()} == {
        "features": (2, 160, 8),
        "inner": (2, 160, 480),
    }
    weights, bias = features.classifier
    rows = features.train.layers["features"]
    np.testing.assert_allclose(rows @ weights + bias[:, None, :], features.train.logits, atol=1e-4)


@pytest.mark.slow
def test_layers_and_classifier_are_evaluated(trained):
    features = trained[0].features()
    found = evaluate(features, views=("raw",), bootstrap=0, restarts=1, metrics=("nc1", "nc3"))
    assert [row.layer for row in found.rows] == ["features", "features", "inner", "inner"]
    assert found.rows[0].value("nc3", split="train", level="coarse") > 0


@pytest.mark.slow
def test_without_a_classifier_nc3_is_left_out_with_the_reason(tmp_path):
    config = dataclasses.replace(SHORT, seeds=1, evaluate=CONFIG.evaluate)
    run = train(config, bars(), network=from_nnx(Net))
    found = evaluate(run.features(), views=("raw",), bootstrap=0, restarts=1, metrics=("nc3",))
    assert any("train again, with a network that gives it" in line for line in found.rows[0].left_out)


def test_readers_ask_for_the_network_again(trained):
    run, _ = trained
    with_data = Run.open(run.workdir, bars())
    with pytest.raises(UserError, match=r"^model\.name is 'own:Net', a function of the caller's, .*: network=\.\.\.$"):
        with_data.state()
    with pytest.raises(UserError, match="was trained with 'own:Net', not with 'own:LinenNet'"):
        Run.open(run.workdir, network=from_linen(LinenNet(5)))
    again = Run.open(run.workdir, bars(), network=from_nnx(Net))
    assert int(again.state().step) == 10
    features = extract_features(again, bars(), epoch=1)
    np.testing.assert_allclose(features.train.layers["features"], run.features(1).train.layers["features"], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "functions", "message"),
    [
        ({}, {}, r"model\.name: 'own:Net' there, 'resnet18' now"),
        ({}, {"network": from_linen(LinenNet(5))}, r"model\.name: 'own:Net' there, 'own:LinenNet' now"),
        ({}, {"network": from_nnx(Net)}, r"optim\.schedule: 'own:half' there, 'cosine' now"),
        ({"model": ModelConfig(name="own:Net")}, {}, r"^model\.name is 'own:Net', a function of the caller's"),
    ],
)
def test_a_work_directory_goes_on_with_the_same_functions_alone(trained, change, functions, message):
    run, _ = trained
    config = dataclasses.replace(SHORT, evaluate=CONFIG.evaluate if not functions else LAYERS, **change)
    if "network" in functions and "LinenNet" in message:
        config = dataclasses.replace(config, evaluate=CONFIG.evaluate)
    with pytest.raises(UserError, match=message):
        train(config, bars(), workdir=run.workdir, **functions)


def test_a_finished_run_is_found_again(trained):
    run, _ = trained
    again = train(SHORT, bars(), network=from_nnx(Net, classifier=last_layer), schedule=half, workdir=run.workdir)
    assert again.metrics() == run.metrics()


def go(workdir):
    """`python -m tests.own WORKDIR` on one device."""
    command = [sys.executable, "-m", "tests.own", str(workdir)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def last_state(workdir):
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore((workdir / "checkpoints" / "120" / "default").absolute())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.slow
def test_killed_run_of_an_own_network_ends_bit_for_bit_like_an_undisturbed_one(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    ((code, err),) = ended([go(undisturbed)])
    assert code == 0, err
    for first in (20, 60):
        process = go(killed)
        while process.poll() is None and not any(
            int(path.name) >= first for path in (killed / "checkpoints").glob("*") if path.name.isdigit()
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        ((code, _),) = ended([process])
        assert code == -signal.SIGKILL
    ((code, err),) = ended([go(killed)])
    assert code == 0, err
    assert records(killed) == records(undisturbed)
    for ours, theirs in zip(last_state(killed), last_state(undisturbed), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_same_features(killed, undisturbed, 12)
