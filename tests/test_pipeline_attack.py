# SPDX-License-Identifier: Apache-2.0
"""Real commands on real files that were damaged, exchanged, edited or made to harm.

Elsewhere: kills while a checkpoint is written (training/test_loop_killed.py), bombs as data sets
(storage/test_bounded_attack.py), no home folder (storage/test_caches.py), processes of two configs
(distributed/test_agreement.py), devices that wait for each other (distributed/test_watch.py).
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import DEMO, ROOT, TINY, assert_same_features, measuring_memory, records
from tests.tensors import ODD_TENSORS

pytestmark = pytest.mark.slow
SMALL = [*TINY, "--labels", "mod:5", "--evaluate.variants", "raw", "--evaluate.epochs", 1, "--checkpoint-epochs", 1]
MOST_KIB = 2**20  # resident at the peak
SIGNALLED = 75


class Said(NamedTuple):
    code: int
    text: str
    peak_kib: int

    @property
    def line(self):
        """The one line of a refusal."""
        (found,) = [line for line in self.text.splitlines() if line.startswith("ncjax: error: ")]
        assert self.code == 2, self.text
        assert "Traceback" not in self.text
        return found


def started(said, *arguments, kib=None):
    own = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    command = [sys.executable, "-m", "ncjax", *map(str, arguments)]
    command = measuring_memory(command, kib) if kib else command
    return subprocess.Popen(command, stdout=said, stderr=said, env=own | {"PYTHONPATH": str(ROOT)})


@pytest.fixture
def ncjax(tmp_path):
    """`ncjax ARGUMENTS` in a process of its own."""

    def run(*arguments):
        with (tmp_path / "said").open("w") as said:
            code = started(said, *arguments, kib=tmp_path / "kib").wait()
        return Said(code, (tmp_path / "said").read_text(), int((tmp_path / "kib").read_text()))

    return run


def train(workdir, *options):
    return "train", DEMO, "--workdir", workdir, *SMALL, *options


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run below a folder whose name is a pattern and a formula, evaluated."""
    workdir = tmp_path_factory.mktemp("attack") / "a [1] $x^2$ {b}*?"
    for arguments in (train(workdir), ("evaluate", workdir)):
        with (workdir.parent / "said").open("w") as said:
            assert started(said, *arguments).wait() == 0, (workdir.parent / "said").read_text()
    return workdir


@pytest.fixture
def workdir(trained, tmp_path):
    shutil.copytree(trained, tmp_path / trained.name)
    return tmp_path / trained.name


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def newest(workdir):
    return max((path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))


# ------------------------------------------------------------------ names


def test_every_verb_works_below_an_odd_name(trained, workdir, ncjax):
    for arguments in (("report", workdir), ("features", workdir), ("export", workdir), train(workdir)):
        said = ncjax(*arguments)
        assert said.code == 0, said.text
        assert "warning" not in said.text
    assert (workdir / "report.html").read_text().count("<svg") > 0
    assert torch.load(workdir / "member_0.pt", weights_only=True)
    assert ncjax("evaluate", workdir / "features" / "2.npz", "--label-map", "mod:5", "--variants", "raw").code == 0
    assert_same_features(workdir, trained, 2)


# ------------------------------------------------------------------ checkpoints and features


def emptied(folder, _):
    shutil.rmtree(folder)
    folder.mkdir()


def half_deleted(folder, _):
    for path in sorted(path for path in folder.rglob("*") if path.is_file())[::2]:
        path.unlink()


def of_another_run(folder, ncjax):
    other = folder.parents[2] / "other"
    assert ncjax(*train(other, "--optim.weight-decay", 0.1)).code == 0
    shutil.rmtree(folder)
    shutil.copytree(newest(other), folder)


def renamed(folder, _):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "5", folder)


@pytest.mark.parametrize("harm", [emptied, half_deleted, of_another_run, renamed])
def test_a_checkpoint_that_is_not_whole_or_not_its_own_is_moved_away(trained, workdir, ncjax, harm):
    folder = newest(workdir)
    harm(folder, ncjax)
    shutil.rmtree(workdir / "features" / "2")
    said = ncjax(*train(workdir))
    assert said.code == 0, said.text
    assert "damaged" in said.text
    assert (workdir / "damaged").is_dir()
    assert records(workdir) == records(trained)
    assert_same_features(workdir, trained, 2)


def test_damaged_features_are_computed_by_a_reader_and_mended_by_the_trainer(trained, workdir, ncjax):
    largest = max((p for p in (workdir / "features" / "2").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    before = content(workdir / "features")
    said = ncjax("evaluate", workdir)
    assert said.code == 0, said.text
    assert "Features of epoch 2 were made again from its checkpoint" in said.text
    assert content(workdir / "features") == before
    said = ncjax(*train(workdir))
    assert "features of epoch 2 were made again from its checkpoint" in said.text
    assert_same_features(workdir, trained, 2, atol=1e-5)


# ------------------------------------------------------------------ edited JSON


@pytest.mark.parametrize(("name", "text", "verb"), [
    ("config.json", "[]", "evaluate"), ("config.json", '{"config": {"seeds": "1"}}', "report"),
    ("config.json", "", "train"), ("members.json", "{}", "evaluate"), ("members.json", "nul", "features"),
    ("data.json", '{"train": 3}', "train"), ("data.json", "[", "evaluate"),
    ("results/training.json", '{"train_secs": "long"}', "evaluate"), ("results/training.json", "NaN", "train"),
    ("results/evaluation.json", '{"schema": 9}', "report"), ("results/evaluation.json", "[1]", "report"),
    ("results/comparison.json", '{"members": 1}', "report"), ("metrics.jsonl", "{}\n{}\n", "report"),
])  # fmt: skip
def test_edited_files_are_one_line_and_stay(workdir, ncjax, name, text, verb):
    (workdir / name).write_text(text)
    if name == "config.json" and verb == "report":
        (workdir / "results" / "evaluation.json").unlink()
    before = content(workdir)
    line = ncjax(*(train(workdir) if verb == "train" else (verb, workdir))).line
    assert str(workdir) in line
    assert "delete" not in line
    if name != "config.json" or verb != "report":
        assert Path(name).name in line
    changed = {path for path, was in before.items() if path.read_bytes() != was}
    assert changed <= {workdir / ".lock"}


# ------------------------------------------------------------------ a run that has not ended, and data that changed


def test_a_run_that_is_killed_is_evaluated_as_far_as_it_came(ncjax, tmp_path):
    workdir, options = tmp_path / "run", ("--optim.epochs", 4000, "--checkpoint-minutes", 60)
    with (tmp_path / "log").open("w") as log:
        process = started(log, *train(workdir, *options))
        while not (workdir / "features" / "1" / "sha256.json").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        said = ncjax("evaluate", workdir)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == SIGNALLED
    assert said.code == 0, said.text
    assert "Training has not ended: evaluated are the features kept so far, up to epoch 1 of 4000." in said.text
    assert ncjax("report", workdir).code == 0


def folder_of_pictures(root, kind):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("ant", "bee", "cow")):
            for i in range(count):
                pixels = rng.integers(0, 60, (8, 8), dtype=np.uint8) + np.uint8(80 * label)
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels if kind == 8 else pixels.astype(np.uint16) * 257).save(path)


def of_pictures(root, workdir):
    options = ("--data.source", "image_folder", "--data.path", root, "--data.cache-dir", root.parent / "cache")
    return (
        *train(workdir, *options, "--optim.batch", 6, "--data.train-examples", 0, "--data.test-examples", 0),
        *("--labels", "mod:2"),
    )


def test_pictures_of_16_bits_are_those_of_8_and_a_changed_folder_is_refused(ncjax, tmp_path):
    for kind in (8, 16):
        folder_of_pictures(tmp_path / f"set{kind}", kind)
        said = ncjax(*of_pictures(tmp_path / f"set{kind}", tmp_path / f"run{kind}"))
        assert said.code == 0, said.text
    assert records(tmp_path / "run8") == records(tmp_path / "run16")
    shutil.copy(tmp_path / "set8" / "train" / "ant" / "1.png", tmp_path / "set8" / "train" / "cow" / "new.png")
    before = content(tmp_path / "run8")
    again = of_pictures(tmp_path / "set8", tmp_path / "run8")
    for arguments in (again, ("evaluate", tmp_path / "run8")):
        assert "on other data (training images of class 'cow': 12 there, 13 now)" in ncjax(*arguments).line
    after = content(tmp_path / "run8")
    assert {path: after[path] for path in before} == before
    (tmp_path / "set8" / "train" / "cow" / "new.png").unlink()
    assert ncjax(*again).code == 0


# ------------------------------------------------------------------ files of features and weights


def bomb(path, shape, megabytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("features", "labels"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape if name == "features" else shape[:1]}
                np.lib.format.write_array_header_1_0(member, header)
                for _ in range(megabytes):
                    member.write(bytes(2**20))


@pytest.mark.parametrize(("shape", "megabytes", "message"), [
    ((2**30, 2**20), 64, "features promises 4503599627370496 bytes"), ((4, 4), 2048, "all labels are 0"),
    ((2**14, 2**10), 8, "features promises 67108864 bytes, but"),
])  # fmt: skip
def test_bombs_of_features_are_refused(ncjax, tmp_path, shape, megabytes, message):
    """The second holds 64 bytes by its header, and 2 GiB: the header counts, and its labels are numbers that are 0."""
    bomb(tmp_path / "f.npz", shape, megabytes)
    said = ncjax("evaluate", tmp_path / "f.npz")
    assert message in said.line
    assert said.peak_kib < MOST_KIB


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_tensors_without_numbers_are_refused(ncjax, tmp_path, kind):
    torch.save({"features": ODD_TENSORS[kind], "labels": torch.tensor([0, 1, 1])}, tmp_path / "f.pt")
    assert f"{tmp_path / 'f.pt'}: train features" in ncjax("evaluate", tmp_path / "f.pt").line


@pytest.mark.parametrize("kind", ["sparse", "meta", "float8", "quantised"])
def test_weights_without_numbers_are_refused(ncjax, tmp_path, kind):
    torch.save({"conv.weight": ODD_TENSORS[kind]}, tmp_path / "w.pt")
    line = ncjax("import", DEMO, *SMALL, "--checkpoints", tmp_path / "w.pt", "--workdir", tmp_path / "run").line
    assert f"{tmp_path / 'w.pt'}: conv.weight is " in line
    assert not (tmp_path / "run").exists()


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_code_in_a_file_is_not_executed(ncjax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"features": Trap()}, "f.pt")
    np.save("f.npy", np.array([Trap()], dtype=object))
    np.savez("f.npz", features=np.array([Trap()], dtype=object))
    for name in ("f.pt", "f.npy", "f.npz"):
        assert name in ncjax("evaluate", name).line
    assert not Path("executed").exists()
