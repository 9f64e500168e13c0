# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench evaluate` on small features."""

import json
import sys

import numpy as np
import pytest

from ncjax.bench import evaluation
from ncjax.cli.main import main


def bench(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ncjax", "bench", "evaluate", *map(str, arguments)])
    main()


def save(file, classes):
    rng = np.random.default_rng(0)
    labels = (np.arange(600) % classes).astype(np.uint8)
    points = 5 * rng.normal(size=(classes, 12))[labels] + rng.normal(size=(600, 12))
    np.savez(file, train=points[:400], train_y=labels[:400], test=points[400:], test_y=labels[400:])
    return file


@pytest.mark.slow
def test_both_find_the_same_classes(tmp_path, monkeypatch, capsys):
    output, file = tmp_path / "out.json", save(tmp_path / "features.npz", 6)
    bench(monkeypatch, "--data", file, "--bootstrap", 0, "--rounds", 1, "--output", output)
    result = json.loads(output.read_text())
    assert [row["name"] for row in result["rows"]] == [evaluation.OURS, evaluation.SKLEARN]
    shares = [float(part.split()[-2]) for note in result["notes"][:2] for part in note.split(", ")[-4:]]
    *plain, whitened = np.reshape(shares, (2, 4)).T
    assert np.min(plain) > 99
    assert whitened.min() > 80  # of 67 points a class in eight whitened directions, seven of them noise
    assert "compilation included" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--bootstrap", 1), "bootstrap is 1"), (("--rounds", 0), "rounds is 0"), (("--data", "no.npz"), "no.npz"),
     (("--data", "odd.npz"), "has 5 classes")],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save("odd.npz", 5)
    with pytest.raises(SystemExit) as error:
        bench(monkeypatch, *arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
