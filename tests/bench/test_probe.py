# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench probe` on small problems."""

import json
import sys

import numpy as np
import pytest

from ncjax.bench import probe
from ncjax.cli.main import main


def bench(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ncjax", "bench", "probe", *map(str, arguments)])
    main()


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    labels = (np.arange(400) % 3).astype(np.uint8)
    points = np.eye(3, 6)[labels] + rng.normal(size=(400, 6))
    np.savez(tmp_path / "features.npz", train=points.astype(np.float16), train_y=labels)
    return tmp_path / "features.npz"


@pytest.mark.slow
def test_both_find_the_same_optimum(file, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.json"
    bench(monkeypatch, "--data", file, "--labellings", 2, "--rounds", 1, "--output", output)
    result = json.loads(output.read_text())
    assert [row["name"] for row in result["rows"]] == [probe.OURS, probe.SKLEARN, probe.PRODUCTS]
    above = [float(note.split(" up to ")[1].split()[0]) for note in result["notes"] if " up to " in note]
    assert len(above) == 2
    assert max(above) < 1e-3
    assert "passes" in capsys.readouterr().out


def test_labellings_are_the_labels_and_others(file):
    points, labels = probe.make_problem(file, 3)
    np.testing.assert_allclose(points.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(labels[0], np.arange(400) % 3)
    changed = [(one != labels[0]).mean() for one in labels[1:]]
    assert all(0.02 < share < 0.12 for share in changed)
    assert (labels[1] != labels[2]).any()


def test_the_loss_is_that_of_scikit_learn(file):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    points, (labels,) = probe.make_problem(file, 1)
    model = LogisticRegression().fit(points, labels)
    wanted = log_loss(labels, model.predict_proba(points)) + probe.L2 / 2 * (model.coef_**2).sum()
    assert probe._loss(points, labels, model.coef_.T, model.intercept_) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--labellings", 0), "labellings is 0"), (("--rounds", 0), "rounds is 0"), (("--data", "no.npz"), "no.npz")],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        bench(monkeypatch, *arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
