# SPDX-License-Identifier: Apache-2.0
"""The demo: its features are what they claim, an independent computation agrees, and it ends with two sentences."""

import json
import re
import sys

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from ncjax.cli import demo
from ncjax.cli.main import main
from ncjax.config import load_config
from ncjax.data import digits
from ncjax.pipeline import evaluate_run, train
from ncjax.results import Evaluation, Row
from tests.runs import ROOT

SMALL = ["--optim.epochs", "1", "--model.width", "4", "--data.train-examples", "640", "--data.test-examples", "200"]


@pytest.fixture(scope="module")
def features():
    with np.load(demo.FEATURES, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def test_the_file_is_small_and_says_where_it_comes_from(features):
    assert demo.FEATURES.stat().st_size <= 1_000_000
    assert features["train_features"].shape == features["test_features"].shape == (5000, 24)
    provenance = json.loads(str(features["provenance"]))
    for name in ("network", "labels", "command", "hardware", "pictures", "source", "kept", "script", "controls"):
        assert provenance[name], name
    assert (ROOT / provenance["script"].split()[1]).is_file()
    controls = provenance["controls"]
    rows = Evaluation.from_json((ROOT / controls["log"]).read_text()).rows
    for kind in ("raw_pixels", "random_init"):
        (row,) = [row for row in rows if row.kind == kind]
        clusters, clp = scores(row)
        assert controls["scores"][kind] == {"clusters": clusters, "clp": clp, "probe": row.value("probe")}


@pytest.fixture(scope="module")
def act_one():
    return demo._act_one()[0]


def test_act_one_agrees_with_scikit_learn(features, act_one):
    x, y = features["train_features"].astype(np.float64), features["train_labels"].astype(int)
    z, w = features["test_features"].astype(np.float64), features["test_labels"].astype(int)
    named = np.empty_like(y)
    for super_class in range(5):
        rows = np.flatnonzero(y % 5 == super_class)
        inside = x[rows] - x[rows].mean(axis=0)
        inside /= np.linalg.norm(inside, axis=1, keepdims=True)
        found = KMeans(2, n_init=10, random_state=0).fit(inside).labels_
        counts = np.array(
            [[np.sum((found == k) & (y[rows] == c)) for c in (super_class, super_class + 5)] for k in (0, 1)]
        )
        _, match = linear_sum_assignment(-counts)
        named[rows] = super_class + 5 * match[found]
    scaled, scaled_test = ((part - x.mean(axis=0)) / x.std(axis=0) for part in (x, z))
    clp = LogisticRegression(C=1.0, max_iter=500).fit(scaled, named).score(scaled_test, w)
    (clusters,), (our_clp,), (probe,) = act_one.trained
    assert clusters == pytest.approx((named == y).mean(), abs=0.003)
    assert our_clp == pytest.approx(clp, abs=0.01)
    assert our_clp < probe + 0.005
    for control in act_one.others.values():
        assert max(control.clusters) < 0.72 < clusters  # of chance 0.5
        assert max(control.clp) < 0.35 < our_clp


def test_the_page_of_the_demo_shows_what_was_measured(act_one):
    page = (ROOT / "docs" / "demo.md").read_text()
    assert demo._table(act_one) in page
    path = ROOT / "docs" / "bench" / "demo" / "evaluation.json"
    act_two = demo._act_two(Evaluation.from_json(path.read_text()), "normalised")
    assert demo._table(act_two) in page
    assert f"the ten classes have {demo.percent(act_two.fine)} %" in page
    assert f"{demo.FEATURES.stat().st_size:,} bytes" in page


def test_the_demo_ends_with_two_sentences_of_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ncjax", "demo", "--workdir", "here", "--quiet", *SMALL])
    main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0] == "ncjax demo: what a network knows of classes that nobody told it."
    assert any(
        re.fullmatch(r"real features: clusters 9\d\.\d %, CLP 8\d\.\d %, probe on true labels \d\d\.\d %", x)
        for x in lines
    )
    first, second = lines[-2:]
    assert first.startswith("A ResNet-18 that saw only five coarse labels of CIFAR-10 kept the ten classes apart: ")
    assert second.startswith("Networks trained here on five coarse labels of shifted digits (2 seeds)")
    for sentence in (first, second):
        assert sentence.count(". ") == 0
        assert sentence.endswith(".")
        assert len(re.findall(r"\d+\.\d(?: ± \d+\.\d)? %", sentence)) >= 6
        assert "–" not in sentence
    assert (tmp_path / "here" / "report.html").is_file()


def scores(row: Row) -> tuple[float, float]:
    """Clusters and CLP in the view of the headline."""
    return row.value("cluster_accuracy", split="train", view="normalised"), row.value("clp", view="normalised")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_act_two_shows_the_effect_on_places_that_nothing_was_tuned_on(tmp_path):
    config = load_config(ROOT / "configs" / "shifted_digits.py")
    run = train(config, digits.shifted_digits(seed=99), workdir=tmp_path / "run")
    rows = evaluate_run(run, bootstrap=0).rows
    kinds = {
        kind: [scores(row) for row in rows if row.kind == kind]
        for kind in ("trained", "shuffled", "random_init", "raw_pixels")
    }
    assert np.mean(kinds["trained"], axis=0)[0] > 0.74
    for kind in ("shuffled", "random_init", "raw_pixels"):
        assert np.mean(kinds[kind], axis=0)[0] < 0.6, kind
