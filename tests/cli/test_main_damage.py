# SPDX-License-Identifier: Apache-2.0
"""comparison.json, speed.json and theory.json that were edited, cut off or are something else, by the commands.

Each is one line on stderr that names the file, and exit code 2; no file changes.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

from ncjax.cli.main import main
from ncjax.results import Comparison, Speed, TimeToAccuracy
from ncjax.typed_json import unstructure
from tests.report.rows import make_row, make_workdir
from tests.report.test_theory import make_sweep
from tests.runs import messages

CONFIG = Path(__file__).parents[2] / "configs" / "digits_demo.py"
SPEED = Speed(images_per_sec=(100.0, 110.0), setup_secs=1.0, peak_mib=5.0)
SOUND = Comparison(
    members=3,
    images_per_epoch=1408,
    asked_epochs=40,
    epochs=30,
    budget_minutes=10.0,
    torch_options={"channels_last": True, "compiled": False, "bfloat16": False},
    torch_chosen="eager, channels_last",
    speed={"ncjax": SPEED, "eager, channels_last": SPEED, "compile": dataclasses.replace(SPEED, images_per_sec=())},
    time_to_accuracy=TimeToAccuracy(
        accuracy=(0.9,), epochs={"ncjax": (3,), "PyTorch": (4,)}, secs={"ncjax": 1.0, "PyTorch": 2.0}
    ),
    rows={"ncjax": (make_row(),), "PyTorch": (make_row(),)},
)
TEXTS = {
    "empty": b"", "null": b"null", "list": b"[]", "number": b"3", "text": b'"x"', "object": b"{}", "NaN": b"NaN",
    "open": b'{"members": ', "deep": b"[" * 100_000, "not UTF-8": b"\xff\xfe{}", "page": b"<html>",
    "long number": b"9" * 5000, "of another kind": b'{"compile_secs": 1.0, "train_secs": 2.0}',
}  # fmt: skip
EDITS = {
    "members": 0,
    "images_per_epoch": -1,
    "epochs": 41,
    "asked_epochs": "40",
    "budget_minutes": "NaN",
    "torch_chosen": "quick",
    "torch_options": [],
    "torch_options.channels_last": 1,
    "speed": {},
    "speed.ncjax": None,
    "speed.ncjax.images_per_sec": [],
    "speed.compile.images_per_sec": [1, 0],
    "speed.ncjax.peak_mib": "5",
    "speed.compile.error": 3,
    "provenance.versions": 3,
}
OF_THE_RESULTS = {
    "time_to_accuracy.secs": {"ncjax": 1.0},
    "time_to_accuracy.epochs.PyTorch": "4",
    "rows.ncjax": [{"kind": "trained"}],
    "rows.PyTorch": {},
    "left_out": "all",
    "more": 1,
}


def edited(name, value):
    content = unstructure(SOUND)
    *outer, last = name.split(".")
    inner = content
    for key in outer:
        inner = inner[key]
    inner[last] = float("nan") if value == "NaN" else value
    return json.dumps(content).encode()


SOUND_TEXT = json.dumps(unstructure(SOUND)).encode()
DAMAGED = {
    **TEXTS,
    "half": SOUND_TEXT[: len(SOUND_TEXT) // 2],
    **{name: edited(name, value) for name, value in (EDITS | OF_THE_RESULTS).items()},
}


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(monkeypatch, capsys):
    def check(path, *arguments):
        before = content(path.parents[1])
        monkeypatch.setattr(sys, "argv", ["ncjax", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert stop.value.code == 2
        (line,) = messages(captured.err)
        assert line.startswith("ncjax: error: ")
        assert str(path) in line
        assert "delete" not in line
        assert len(line) < 800
        assert captured.out == ""
        assert content(path.parents[1]) == before
        return line

    return check


OF_OPTIONS = "torch_options.channels_last"  # the report shows options of any version as they are


@pytest.mark.parametrize("name", [name for name in DAMAGED if name != OF_OPTIONS])
def test_comparisons_that_do_not_fit_are_refused_by_the_report(tmp_path, refused, name):
    workdir = make_workdir(tmp_path / "run", [make_row()])
    path = workdir / "results" / "comparison.json"
    path.write_bytes(DAMAGED[name])
    refused(path, "report", workdir)


OF_A_COMPARISON = [(file, name) for file in ("speed.json", "comparison.json") for name in DAMAGED]
OF_A_COMPARISON.remove(("comparison.json", OF_OPTIONS))  # flags are read of speed.json


@pytest.mark.parametrize(("file", "name"), OF_A_COMPARISON)
def test_comparisons_that_do_not_fit_are_refused_before_anything_is_trained(tmp_path, refused, file, name):
    """The data set is read for each: digits."""
    results = tmp_path / "run" / "results"
    results.mkdir(parents=True)
    (results / "speed.json").write_bytes(SOUND_TEXT)
    (results / file).write_bytes(DAMAGED[name])
    refused(results / file, "compare", CONFIG, "--workdir", tmp_path / "run")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """With a theory.npz, so that `ncjax theory` takes it for done, and the config.json of the command's config."""
    workdir = make_sweep(tmp_path_factory.mktemp("sweep") / "run")
    (workdir / "config.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ncjax", "theory", "theory_frozen", "--workdir", str(workdir)])
        main()
    (workdir / "report.html").unlink()
    return workdir


OF_A_SWEEP = {
    **{name: text for name, text in TEXTS.items() if name != "long number"},
    "no runs": b'{"diverged": 1, "wall_secs": 2.5}',
    "runs as text": b'{"runs": "8", "diverged": 1, "wall_secs": 2.5}',
    "runs as a fraction": b'{"runs": 8.5, "diverged": 1, "wall_secs": 2.5}',
    "runs as a flag": b'{"runs": true, "diverged": 1, "wall_secs": 2.5}',
    "infinite": b'{"runs": 8, "diverged": 1, "wall_secs": Infinity}',
    "too long": b'{"runs": 8, "diverged": 1, "wall_secs": 1' + b"0" * 400 + b"}",
    "seconds of another type": b'{"runs": 8, "diverged": 1, "wall_secs": [2]}',
    "half": b'{"runs": 8, "diverged": 1, "wall',
}


@pytest.mark.parametrize("verb", ["report", "theory"])
@pytest.mark.parametrize("name", OF_A_SWEEP)
def test_summaries_of_a_sweep_that_do_not_fit_are_refused(sweep, tmp_path, refused, verb, name):
    workdir = tmp_path / "run"
    shutil.copytree(sweep, workdir)
    path = workdir / "results" / "theory.json"
    path.write_bytes(OF_A_SWEEP[name])
    refused(path, verb, *((workdir,) if verb == "report" else ("theory_frozen", "--workdir", workdir)))
