# SPDX-License-Identifier: Apache-2.0
"""Streamed training beside the resident one on the same data: the same numbers, bit for bit."""

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from jax.sharding import NamedSharding
from PIL import Image

from ncjax.config import DataConfig, ModelConfig
from ncjax.data import load_dataset
from ncjax.distributed.mesh import REPLICATED
from ncjax.errors import UserError
from ncjax.features.extraction import extract
from ncjax.training.loop import PreparedRun, chunk_images, fit, prepare
from ncjax.training.state import TrainState, init_state
from ncjax.training.step import compile_chunk
from tests.data.test_tfds import prepare as prepare_tfds
from tests.training.test_loop import assert_same, records

FOUR = {"labels": ("mod:5", "fine"), "seeds": 2}
SOURCES = ("npz", "image_folder", "tfds")


@pytest.fixture
def files(dataset, tmp_path):
    """A function that writes the bars of `dataset` as files of one kind; returns the config to read them."""
    root, augmented = tmp_path / "data", {"crop_padding": 1, "flip": True, "cache_dir": str(tmp_path / "cache")}
    splits = {"train": dataset.train, "test": dataset.test}

    def npz():
        arrays = {f"x_{name}": split.images for name, split in splits.items()}
        np.savez(root / "bars.npz", **arrays, **{f"y_{name}": split.labels for name, split in splits.items()})
        return {"path": str(root / "bars.npz")}

    def image_folder():
        for name, split in splits.items():
            for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                (root / name / str(label)).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[..., 0]).save(root / name / str(label) / f"{i:03}.png")
        return {"path": str(root)}

    def records():
        features = {"image": tfds.features.Image(shape=(10, 6, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
        rows = {
            name: [
                {"image": image, "label": int(label)} for image, label in zip(split.images, split.labels, strict=True)
            ]
            for name, split in splits.items()
        }
        prepare_tfds(root / "bars" / "1.0.0", rows, features)
        return {"path": str(root), "tfds_name": "bars"}

    def write(source):
        root.mkdir()
        written = {"npz": npz, "image_folder": image_folder, "tfds": records}[source]()
        return DataConfig(source=source, **written, **augmented)

    return write


def streamed(config):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, streamed=True))


class Program(NamedTuple):
    """What the tests of this file compile once: an image's source is no part of it."""

    run: PreparedRun
    state: TrainState
    chunk: Any


@pytest.fixture(scope="module")
def programs():
    known = {}

    def program(config, dataset):
        if config not in known:
            run = prepare(config, dataset)
            state = init_state(run.spec, run.ensemble)
            known[config] = Program(run, state, compile_chunk(run.spec, state, run.images, run.ensemble))
        run, state, chunk = known[config]
        now = prepare(config, dataset)
        return Program(dataclasses.replace(now, spec=run.spec), jax.tree.map(jnp.copy, state), chunk)

    return program


def steps(program, first, last, state=None):
    """Losses `[t s]` of the steps first..last, and the state after them."""
    run, state = program.run, state or program.state
    losses, at = [], first
    with closing(chunk_images(run, first)) as images:
        while at < last:
            end = min((at // run.spec.steps_per_epoch + 1) * run.spec.steps_per_epoch, last)
            stop = jax.device_put(jnp.asarray(end, jnp.int32), NamedSharding(run.spec.mesh, REPLICATED))
            state, chunk = program.chunk(state, next(images), run.ensemble, stop)
            taken = min(run.config.chunk_steps, end - at)
            losses.append(np.asarray(chunk.loss)[:taken])
            at += taken
    return np.concatenate(losses), state


@pytest.mark.parametrize("mesh", [(1, 1), pytest.param((2, 4), marks=pytest.mark.slow)])
@pytest.mark.parametrize("source", SOURCES)
def test_losses_are_those_of_the_resident_path(config, files, programs, with_mesh, source, mesh):
    config = with_mesh(dataclasses.replace(config, model=ModelConfig(name="mlp", width=4), **FOUR), *mesh)
    data = files(source)
    resident = steps(programs(config, load_dataset(data)), 0, 25)
    dataset = load_dataset(dataclasses.replace(data, streamed=True))
    other = steps(programs(streamed(config), dataset), 0, 25)
    np.testing.assert_array_equal(other[0], resident[0])
    assert_same(other[1], resident[1])
    assert np.unique(other[0]).size == 100


def test_any_step_of_an_epoch_is_a_place_to_go_on_from(config, dataset, programs):
    config = streamed(dataclasses.replace(config, model=ModelConfig(name="mlp", width=4), **FOUR))
    straight, final = steps(programs(config, dataset), 0, 20)
    first, state = steps(programs(config, dataset), 0, 7)
    second, ended = steps(programs(config, dataset), 7, 20, state)
    np.testing.assert_array_equal(np.concatenate([first, second]), straight)
    assert_same(ended, final)


def ended(config, workdir, on_epoch=lambda epoch, state: None):
    """Metrics without times, the last state and its features."""
    workdir.mkdir(exist_ok=True)
    dataset = load_dataset(config.data)
    run = prepare(config, dataset)
    outcome = fit(run, workdir, on_epoch)
    return [{**line, "wall_secs": 0} for line in records(workdir)], outcome.state, extract(run, outcome.state, dataset)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        (ModelConfig(name="mlp", width=4), (1, 1)),
        pytest.param(ModelConfig(name="cnn", width=4), (2, 4), marks=pytest.mark.slow),
    ],
)
def test_metrics_and_features_of_a_run_are_those_of_the_resident_path(config, files, with_mesh, tmp_path, model, mesh):
    config = with_mesh(
        dataclasses.replace(config, data=files("image_folder"), model=model, labels=FOUR["labels"]), *mesh
    )
    resident, other = ended(config, tmp_path / "resident"), ended(streamed(config), tmp_path / "streamed")
    assert len(other[0]) == 3
    assert other[0] == resident[0]
    assert_same(other[1], resident[1])
    assert_same(dataclasses.asdict(other[2]), dataclasses.asdict(resident[2]))


def test_an_image_that_is_damaged_while_training_ends_the_run_in_one_line(config, files, programs):
    data = dataclasses.replace(files("image_folder"), streamed=True)
    dataset = load_dataset(data)
    damaged = sorted(Path(data.path).glob("train/*/*.png"))[0]
    damaged.write_bytes(b"")
    config = streamed(dataclasses.replace(config, model=ModelConfig(name="mlp", width=4), **FOUR))
    with pytest.raises(UserError, match=f"^{damaged} is not an image") as error:
        steps(programs(config, dataset), 0, 10)
    assert "\n" not in str(error.value)
