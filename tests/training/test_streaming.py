# SPDX-License-Identifier: Apache-2.0
"""What is streamed to a chunk of steps, beside a NumPy gather of the resident order; threads, parts and bad images."""

import dataclasses
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.config import MeshConfig
from ncjax.data import Streamed
from ncjax.data.dataset import CROPS, Reader, channel_counts
from ncjax.distributed.mesh import make_mesh
from ncjax.errors import UserError
from ncjax.training.members import example_order, streamed_images
from ncjax.training.streaming import chunks, make_feed

BATCH, CHUNK, EXAMPLES = 8, 3, 40  # five steps an epoch: chunks of 3, 2, 3, 2, ...
SEEDS = np.array([0, 1, 0, 1, 2, 2, 2, 2], np.int32)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (EXAMPLES, 4, 3, 2), dtype=np.uint8)


@pytest.fixture
def streamed(images):
    """The same images behind a reader that counts what it reads, in any thread."""
    read, lock = [], threading.Lock()

    def one(row):
        with lock:
            read.append(row)
        return images[row], 0

    reader = Reader(name="here", count=EXAMPLES, read=one)
    rows, counts = np.arange(EXAMPLES), channel_counts(images)
    return Streamed(reader=reader, rows=rows, shape=images.shape, counts=counts), read


def feed_of(images, member, data, seeds=SEEDS):
    mesh = make_mesh(MeshConfig(member=member, data=data), BATCH)
    return make_feed(images, seeds, mesh, batch=BATCH, chunk_steps=CHUNK)


def expected(images, step, seeds=SEEDS):
    """`[s b h w ch]` of a step."""
    epoch, number = divmod(step, EXAMPLES // BATCH)
    order = np.asarray(example_order(jnp.asarray(seeds), jnp.asarray(epoch), EXAMPLES))
    return images[order[:, number * BATCH : (number + 1) * BATCH]]


def step_of(chunk, number):
    return chunk._replace(pixels=chunk.pixels[number], rows=chunk.rows[number])


@pytest.mark.parametrize("mesh", [(1, 1), (2, 4), (8, 1), (1, 8), (4, 2)])
def test_every_step_is_the_gather_of_its_order(images, mesh):
    feed = feed_of(images, *mesh)
    step = 0
    for count, chunk in zip((3, 2, 3, 2), chunks(feed, 0, 10), strict=True):
        assert chunk.pixels.sharding.num_devices == mesh[0] * mesh[1]
        for i in range(count):
            rows, now = streamed_images(step_of(chunk, i))
            np.testing.assert_array_equal(now, expected(images, step))
            np.testing.assert_array_equal(now, images[np.asarray(rows)])
            step += 1
        assert not np.asarray(chunk.pixels[count:]).any()
    assert step == 10


@pytest.mark.parametrize(("member", "sequences"), [(1, 3), (2, 2), (4, 2), (8, 1)])
def test_members_of_one_shard_with_one_seed_share_their_images(images, member, sequences):
    feed = feed_of(images, member, 1)
    assert feed.shape == (CHUNK, member, sequences, BATCH, 4, 3, 2)


def test_any_step_can_be_the_first(images):
    feed = feed_of(images, 2, 2)
    (first,) = chunks(feed, 8, 10)
    for i in range(2):
        np.testing.assert_array_equal(streamed_images(step_of(first, i))[1], expected(images, 8 + i))


def test_each_image_of_a_step_is_read_once(streamed):
    images, read = streamed
    same = np.zeros(8, np.int32)
    assert len(list(chunks(feed_of(images, 4, 2, same), 0, 5))) == 2
    assert sorted(read) == list(range(EXAMPLES))  # one epoch of one seed, though four shards hold it


def test_a_device_gets_its_images_without_talking_to_another(images):
    chunk = next(chunks(feed_of(images, 4, 2), 0, 10))
    program = jax.jit(lambda chunk: streamed_images(step_of(chunk, 1))).lower(chunk).compile().as_text()
    assert not any(name in program for name in ("all-gather", "all-reduce", "collective-permute", "all-to-all"))


def test_little_is_read_ahead(streamed):
    images, read = streamed
    chunk = chunks(feed_of(images, 1, 1, np.zeros(1, np.int32)), 0, 1000)
    next(chunk)
    chunk.close()
    assert CHUNK * BATCH <= len(read) <= (3 * CHUNK + 2 * (os.cpu_count() or 1)) * BATCH


def test_an_image_that_cannot_be_read_ends_the_feed(streamed):
    images, _ = streamed

    def broken(row):
        if row == 17:
            raise UserError("train/bee/17.png is not an image that can be read")
        return images.reader.read(row)

    damaged = dataclasses.replace(images, reader=dataclasses.replace(images.reader, read=broken))
    with pytest.raises(UserError, match=r"^train/bee/17\.png is not an image"):
        list(chunks(feed_of(damaged, 1, 1), 0, 5))


def crop(images, row, rng):
    """The image of a row, with a random number in one of its pixels."""
    pixels = images[row].copy()
    pixels[0, 0, 0] = rng.integers(256)
    return pixels


def cropped(streamed, read):
    return dataclasses.replace(streamed, reader=dataclasses.replace(streamed.reader, crop=read))


def expected_crops(images, step, seeds=SEEDS):
    """`[s b h w ch]` of a step: every crop is a function of its seed, the epoch and the row."""
    epoch, number = divmod(step, EXAMPLES // BATCH)
    order = np.asarray(example_order(jnp.asarray(seeds), jnp.asarray(epoch), EXAMPLES))
    rows = order[:, number * BATCH : (number + 1) * BATCH]
    made = [
        [crop(images, row, np.random.default_rng([CROPS, seed, epoch, row])) for row in one]
        for seed, one in zip(seeds, rows, strict=True)
    ]
    return np.stack(made)


@pytest.mark.parametrize(("mesh", "first"), [((1, 1), 0), ((2, 4), 3), ((8, 1), 7), ((4, 2), 5)])
def test_random_crops_follow_from_seed_epoch_and_row_on_any_mesh_from_any_step(images, streamed, mesh, first):
    data = cropped(streamed[0], lambda row, rng: crop(images, row, rng))
    step = first
    for chunk in chunks(feed_of(data, *mesh), first, 10):
        for i in range(min(CHUNK, 5 - step % 5)):
            rows, now = streamed_images(step_of(chunk, i))
            np.testing.assert_array_equal(now, expected_crops(images, step))
            np.testing.assert_array_equal(now[..., 1], images[np.asarray(rows)][..., 1])
            step += 1
    assert step == 10


@pytest.mark.slow
def test_workers_read_what_threads_read(images, streamed):
    def read(row, rng):
        return crop(images, row, rng)

    data = dataclasses.replace(cropped(streamed[0], read), rows=np.arange(EXAMPLES))
    data = dataclasses.replace(data, reader=dataclasses.replace(data.reader, read=lambda row: (images[row], 0)))
    mesh = make_mesh(MeshConfig(member=2, data=4), BATCH)
    feed = make_feed(data, SEEDS, mesh, batch=BATCH, chunk_steps=CHUNK, workers=2)
    step = 3
    for chunk in chunks(feed, step, 7):
        for i in range(min(CHUNK, 5 - step % 5, 7 - step)):
            rows, now = streamed_images(step_of(chunk, i))
            np.testing.assert_array_equal(now, expected_crops(images, step))
            np.testing.assert_array_equal(now[..., 1], images[np.asarray(rows)][..., 1])
            step += 1
    assert step == 7
