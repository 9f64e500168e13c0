# SPDX-License-Identifier: Apache-2.0
"""A work directory in a bucket: real processes train, are killed, go on, evaluate and report, by a store that fails."""

import json
import signal
import time

import numpy as np
import pytest

from ncjax.buckets import BucketPath
from tests.bucket_server import bucket_in_this_process
from tests.runs import (
    DEMO,
    TINY,
    arrays_of,
    assert_close,
    command,
    ended,
    load_features,
    messages,
    records,
    start,
    start_several,
    without_what_differs,
)

SOON = """
from ncjax.storage import leases
leases.RENEW_SECS, leases.LEASE_SECS, leases.POLL_SECS = 1.0, 6.0, 0.2
"""
EPOCHS = 100
LONG = ("--optim.epochs", EPOCHS, "--evaluate.epochs", EPOCHS, "--checkpoint-minutes", 0.02)


@pytest.fixture(scope="module")
def store():
    with bucket_in_this_process() as server:
        yield server


def run(*arguments):
    process = start(arguments, before=SOON)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def killed_and_gone_on(store):
    """Killed after its first checkpoint; meanwhile another trainer is refused, and a reader sees that it lives."""
    workdir = BucketPath("gs://bucket1/runs/a demo")
    store.delay_secs = 0.1
    first = start(command("train", workdir, *LONG), before=SOON)
    while not list((workdir / "checkpoints").glob("*/commit_success.txt")) and first.poll() is None:
        time.sleep(0.05)
    seen = run("status", workdir)
    ((refused, said),) = ended([start(command("train", workdir, *LONG), before=SOON)])
    first.send_signal(signal.SIGKILL)
    ended([first])
    before = records_of(workdir)
    store.fail_every, store.delay_secs = 150, 0.0
    again = start(command("train", workdir, *LONG), before=SOON)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    run("evaluate", workdir)
    run("report", workdir)
    store.fail_every = 0
    return workdir, seen, (refused, said), before, err


def records_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "wall_secs"} for line in lines]


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit_like_one_on_a_disk(killed_and_gone_on, tmp_path):
    workdir, _, _, before, err = killed_and_gone_on
    assert 0 < len(before) < EPOCHS
    assert "to see if it runs" in err
    ((code, said),) = ended([start(command("train", tmp_path, *LONG))])
    assert code == 0, said
    assert records_of(workdir) == records(tmp_path)
    ours, theirs = (arrays_of(load_features(folder, EPOCHS)) for folder in (workdir, tmp_path))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_second_trainer_is_refused_and_the_first_is_named(killed_and_gone_on):
    _, _, (code, said), _, _ = killed_and_gone_on
    assert code == 2
    assert "is in use by process" in messages(said)[-1]


@pytest.mark.slow
def test_another_process_sees_the_run_live_and_end(killed_and_gone_on):
    workdir, seen, *_ = killed_and_gone_on
    assert "in training by process" in seen
    assert "which lives" in seen
    assert f"of {EPOCHS}" in seen
    assert "in training by" not in run("status", workdir)


@pytest.mark.slow
def test_results_and_page_are_in_the_bucket(killed_and_gone_on):
    workdir, *_ = killed_and_gone_on
    rows = json.loads((workdir / "results" / "evaluation.json").read_text())["rows"]
    assert any(row["member"] for row in rows)
    assert "<html" in (workdir / "report.html").read_text()
    names = [path.name for path in workdir.rglob("*")]
    assert not [name for name in names if name == ".lock" or ".draft" in name]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_and_evaluate_like_two_on_a_disk(store, tmp_path):
    folders = BucketPath("gs://bucket1/runs/two"), tmp_path
    for folder in folders:
        for line in (command("train", folder, "--mesh.data", 0), ["evaluate", folder]):
            for code, said in ended(start_several(line, processes=2, devices=1)):
                assert code == 0, said
    assert records_of(folders[0]) == records(folders[1])
    ours, theirs = (json.loads((folder / "results" / "evaluation.json").read_text()) for folder in folders)
    assert_close(without_what_differs(ours["rows"]), without_what_differs(theirs["rows"]), atol=1e-5)


SEED = ("--labels", "mod:5", "--seeds", 1, "--evaluate.variants", "normalised", "--evaluate.restarts", 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_comparison_with_pytorch_is_in_the_bucket_and_goes_on_there(store):
    pytest.importorskip("torch")
    workdir = BucketPath("gs://bucket1/runs/compared")
    line = ["compare", DEMO, *TINY, *SEED, "--workdir", workdir, "--budget-minutes", 10, "--torch-modes", "eager"]
    for _ in range(2):
        run(*line, "--optim.epochs", 2)
    found = json.loads((workdir / "results" / "comparison.json").read_text())
    assert set(found["rows"]) == {"ncjax", "PyTorch"}
    assert found["left_out"] == []
    assert len(records_of(workdir)) == len(records_of(workdir / "torch")) == 2
    run("report", workdir)
    assert "PyTorch" in (workdir / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_experiments_are_reproduced_in_the_bucket(store):
    root = BucketPath("gs://bucket1/reproduced")
    said = run("reproduce", "digits", "--scale", "try", "--workdir", root)
    results = root / "results" / "digits_try"
    assert f"results: {results}" in said
    assert json.loads((results / "results" / "evaluation.json").read_text())["rows"]
    assert "results: gs://bucket1/reproduced" not in run("reproduce", "digits", "--scale", "try", "--workdir", root)
    run("report", results)
    assert (results / "report.html").is_file()


def test_what_cannot_be_done_is_refused_before_training(store):
    for workdir, why in (("s3://bucket/run", "gs://BUCKET/PATH"), ("gs://bucket1/run[1]", "pattern")):
        ((code, said),) = ended([start(command("train", workdir))])
        assert code == 2
        line = messages(said)[-1]
        assert workdir in line
        assert why in line
    assert not BucketPath("gs://bucket1/run[1]").exists()


@pytest.mark.slow
def test_tensorboard_is_refused_before_a_step(store):
    workdir = BucketPath("gs://bucket1/runs/events")
    ((code, said),) = ended([start(command("train", workdir, "--tensorboard"))])
    assert code == 2
    assert "turn it off" in messages(said)[-1]
    assert not workdir.exists()
