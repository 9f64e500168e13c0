# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench kmeans`: the peers solve the same problems, and one judge compares their labels."""

import json
import sys

import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs

from ncjax.bench import kmeans
from ncjax.bench.interleave import Measured
from ncjax.cli.main import main


def ncjax(*arguments):
    sys.argv = ["ncjax", *map(str, arguments)]
    main()


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    def interleave(peers, *, rounds):
        return {name: Measured((peer.make_timer()(),) * rounds, 0.0, 0, "") for name, peer in peers.items()}

    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(kmeans, "interleave", interleave)
    monkeypatch.setattr(kmeans, "MEASURED_SECS", 0.0)
    with jax.numpy_rank_promotion("allow"):  # of ott-jax
        yield


@pytest.fixture
def file(tmp_path):
    """Ten separate classes; class modulo five is the super-class, of different sizes."""
    points, labels = make_blobs([40, 40, 30, 30, 25, 20, 20, 20, 20, 20], 6, cluster_std=0.1, random_state=0)
    np.savez(tmp_path / "features.npz", train=points.astype(np.float32), train_y=labels)
    return tmp_path / "features.npz"


@pytest.mark.slow
def test_peers_are_judged_by_their_labels(file, tmp_path, capsys):
    ncjax("bench", "kmeans", "cifar10", "--data", file, "--rounds", 2, "--output", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert {row["unit"] for row in rows.values()} == {"s"}
    assert len(rows["ncjax"]["values"]) == 2
    compared = next(c for c in result["comparisons"] if c["theirs"] == "scikit-learn Lloyd")
    assert compared["what"] == "k-means, cifar10: 5 x 60 x 6, k = 2"
    (note,) = (note for note in result["notes"] if note.startswith("scikit-learn Lloyd"))
    assert note.endswith("inertia 1.00000 of ours, 100.00 % of the labels as ours.")
    assert note in capsys.readouterr().out


def test_the_judge_sees_worse_and_other_labels():
    points = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    ours, theirs = np.array([0, 0, 1, 1], np.int32), np.array([1, 1, 0, 1], np.int32)
    # ours: 4 x 0.25 = 1; theirs: 0, 1 and 11 about their mean 4: 74
    assert kmeans._quality([points], 2, theirs, ours) == "inertia 74.00000 of ours, 75.00 % of the labels as ours."


@pytest.mark.parametrize("workload", ["features", "super-classes"])
def test_made_problems_have_the_stated_shapes(workload):
    problems, k = kmeans.make_problems(workload, None)
    assert (len(problems), problems[0].shape, k) == (
        (5, (10_000, 512), 2) if workload == "super-classes" else (1, (50_000, 512), 10)
    )


def test_bad_input(tmp_path, capsys):
    (tmp_path / "no.npz").write_text("no")
    for arguments, message in (
        (("cifar10",), "needs --data FILE"),
        (("cifar10", "--data", tmp_path / "no.npz"), "is not an npz file with train [n d] and train_y [n]"),
        (("cifar100",), "unknown workload 'cifar100'; known: features, super-classes"),
    ):
        with pytest.raises(SystemExit) as stop:
            ncjax("bench", "kmeans", *arguments, "--output", tmp_path / "out.json")
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
