# SPDX-License-Identifier: Apache-2.0
"""Training on pictures of many sizes, made here: ImageNet in small, as a folder and as records."""

import dataclasses
import signal
import time
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncjax.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig
from ncjax.data import load_dataset
from ncjax.data.dataset import CROPS, Streamed
from ncjax.training.loop import chunk_images, fit, prepare
from ncjax.training.members import streamed_images
from tests.runs import ROOT, ended, records, start
from tests.scripts import load_script

SOURCES = {
    "folder": {"source": "image_folder", "path": "folder"},
    "records": {"source": "tfds", "tfds_name": "made", "path": "records"},
}


def write(root, pictures, classes, least, most):
    made = load_script("made_pictures")
    splits = dict(made.make_pictures(pictures, classes, least, most))
    made.write_folder(root / "folder", splits)
    made.write_records(root / "records" / "made" / "1.0.0", splits, classes)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write(root, 120, 8, 20, 60)
    return root


def config_of(root, kind, **data):
    where = SOURCES[kind] | {"path": str(root / SOURCES[kind]["path"]), "cache_dir": str(root / "cache")}
    cuts = {"streamed": True, "image_size": 24, "resize": 28, "crop_scale": 0.08, "flip": True, "test_split": "val"}
    return Config(
        labels=("superclass", "fine") if kind == "folder" else ("mod:2", "fine"),
        data=DataConfig(**where, **(cuts | data)),
        model=ModelConfig(name="cnn", width=4),
        loss=LossConfig(label_smoothing=0.1),
        optim=OptimConfig(batch=16, epochs=2, warmup_epochs=1, schedule="cosine"),
        chunk_steps=4,
    )


@pytest.mark.parametrize("kind", SOURCES)
def test_splits_and_cuts_are_those_of_the_pictures(root, kind):
    config = config_of(root, kind)
    dataset = load_dataset(config.data)
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (96, 24)
    assert isinstance(dataset.train.images, Streamed)
    assert dataset.train.images.shape == (96, 24, 24, 3)
    resident = load_dataset(dataclasses.replace(config.data, streamed=False, crop_scale=0.0))
    np.testing.assert_array_equal(dataset.test.images[:], resident.test.images)
    np.testing.assert_array_equal(dataset.train.labels, resident.train.labels)
    once, again, other = (dataset.train.images.random_crops(np.arange(3), np.zeros(3, int), e) for e in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_a_folder_and_records_of_the_same_pictures_give_the_same_crops(root):
    found = [load_dataset(config_of(root, kind).data).train for kind in SOURCES]
    np.testing.assert_array_equal(*(split.labels for split in found))
    rows, seeds = np.arange(0, 96, 7), np.arange(14)
    np.testing.assert_array_equal(*(split.images.random_crops(rows, seeds, 3) for split in found))


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("folder", 0), *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in ("folder", "records"))],
)
def test_what_a_step_trains_on_is_the_crop_of_its_seed_epoch_and_row(root, kind, workers):
    config = config_of(root, kind, workers=workers)
    run = prepare(config, load_dataset(config.data))
    assert run.spec.steps_per_epoch == 6
    with closing(chunk_images(run, 9)) as chunks:  # in the middle of the second epoch
        chunk = next(chunks).streamed
    images = run.dataset.train.images
    for number in range(3):
        rows, pixels = streamed_images(chunk._replace(pixels=chunk.pixels[number], rows=chunk.rows[number]))
        for i in (0, 15):
            row = int(rows[0, i])
            wanted = images.reader.crop(int(images.rows[row]), np.random.default_rng([CROPS, 0, 1, row]))
            np.testing.assert_array_equal(pixels[0, i], wanted)
            np.testing.assert_array_equal(pixels[1, i], wanted)  # members of one seed see the same


@pytest.mark.slow
def test_the_set_trains(root, tmp_path):
    config = config_of(root, "folder")
    run = prepare(config, load_dataset(config.data))
    assert [member.label_map.classes for member in run.members] == [2, 8]
    outcome = fit(run, tmp_path, lambda epoch, state: None)
    assert not outcome.failures
    losses = [line["train_loss"] for line in records(tmp_path)]
    assert len(losses) == 2
    assert all(np.isfinite(list(one.values())).all() for one in losses)


BIG = ["--data.image-size", 64, "--data.resize", 72, "--model.name", "resnet18", "--model.width", 4]
BIG += ["--optim.batch", 64, "--optim.dtype", "bfloat16", "--optim.warmup-epochs", 1, "--mesh.data", 1]
BIG += ["--optim.lr", 0.1, "--optim.epochs", 2, "--evaluate.epochs", 0, "--evaluate.observe-epochs", 0]
OFTEN = ["--checkpoint-minutes", 1e-6, "--chunk-steps", 4]


@pytest.fixture(scope="module")
def thousands(tmp_path_factory):
    root = tmp_path_factory.mktemp("thousands")
    write(root, 2000, 20, 160, 500)
    return root


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", SOURCES)
def test_two_thousand_pictures_go_on_bit_for_bit_in_the_middle_of_an_epoch(thousands, kind, tmp_path):
    """The config of ImageNet in a process of its own, with workers and without, killed in the middle of two epochs."""

    def go(workdir: Path, workers: int):
        where = SOURCES[kind]
        options = ["--data.path", thousands / where["path"], "--data.source", where["source"]]
        options += ["--data.cache-dir", thousands / "cache", "--data.workers", workers, "--workdir", workdir]
        options += ["--data.tfds-name", "made"] if kind == "records" else []
        options += ["--labels", "superclass" if kind == "folder" else "mod:5", "fine"]
        return start(["train", ROOT / "configs" / "coarse_imagenet.py", *options, *BIG, *OFTEN])

    def steps(workdir: Path) -> list[int]:
        return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())

    ((code, err),) = ended([go(tmp_path / "straight", 0)], timeout=900)
    assert code == 0, err
    for after, workers, number in ((6, 2, signal.SIGKILL), (31, 0, signal.SIGTERM)):
        process = go(tmp_path / "killed", workers)
        while process.poll() is None and max(steps(tmp_path / "killed"), default=0) < after:
            time.sleep(0.05)
        process.send_signal(number)
        ended([process], timeout=900)
    at = steps(tmp_path / "killed")[-1]
    assert at % 25, "the run was killed between two epochs"
    ((code, err),) = ended([go(tmp_path / "killed", 2)], timeout=900)
    assert code == 0, err
    assert steps(tmp_path / "straight")[-1] == steps(tmp_path / "killed")[-1] == 50
    one, other = (records(tmp_path / name) for name in ("straight", "killed"))
    assert one == other
    states = []
    for name in ("straight", "killed"):
        with ocp.StandardCheckpointer() as checkpointer:
            states.append(checkpointer.restore((tmp_path / name / "checkpoints" / "50" / "default").absolute()))
    jax.tree.map(np.testing.assert_array_equal, *states)
    member = next(iter(one[-1]["train_loss"]))
    assert one[-1]["train_loss"][member] < one[0]["train_loss"][member]
