# SPDX-License-Identifier: Apache-2.0
"""Runs that go on, or are evaluated, after their data have changed."""

import json

import numpy as np
import pytest
from PIL import Image

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig
from ncjax.errors import UserError
from ncjax.features.run import Run
from ncjax.pipeline import evaluate_run, train

RNG = np.random.default_rng(0)


@pytest.fixture
def config(tmp_path):
    """Three classes of eight pictures, two of them held out; two are trained as one by a file."""
    for name in ("ant", "bee", "cow"):
        for i in range(8):
            path = tmp_path / "set" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (4, 4), dtype=np.uint8)).save(path)
    (tmp_path / "map.json").write_text("[0, 1, 1]")
    data = DataConfig(
        source="image_folder", path=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"), test_fraction=0.25
    )
    return Config(
        labels=(f"file:{tmp_path / 'map.json'}",),
        data=data,
        model=ModelConfig(name="mlp", width=4),
        optim=OptimConfig(epochs=1, batch=6, lr=(0.1,)),
        evaluate=EvaluateConfig(variants=("raw",), restarts=1),
    )


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(again, workdir, message):
    before = content(workdir)
    with pytest.raises(UserError, match=message):
        again()
    assert content(workdir) == before


def test_a_run_goes_on_with_its_own_data_and_labels_alone(config, tmp_path):
    workdir, new = tmp_path / "run", tmp_path / "set" / "cow" / "new.png"
    train(config, workdir=workdir)
    (tmp_path / "map.json").write_text("[0, 0, 1]")
    refused(lambda: train(config, workdir=workdir), workdir, r"map file:.*map\.json gave the classes other labels; put")
    (tmp_path / "map.json").write_text("[0, 1, 1]")
    new.write_bytes((tmp_path / "set" / "ant" / "0.png").read_bytes())
    for again in (lambda: train(config, workdir=workdir), lambda: evaluate_run(workdir, bootstrap=0)):
        refused(again, workdir, r"run on other data \(training images of class 'cow': 6 there, 7 now\)")
    new.unlink()
    (workdir / "data.json").unlink()
    assert Run.open(workdir).dataset.name == "set"
    assert not (workdir / "data.json").exists()
    train(config, workdir=workdir)
    assert json.loads((workdir / "data.json").read_text())["test"]["classes"] == {"ant": 2, "bee": 2, "cow": 2}
