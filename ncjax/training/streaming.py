# SPDX-License-Identifier: Apache-2.0
"""Streams images to the devices: those of training a chunk of steps at a time, in the order of the resident path."""

import math
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32, UInt8

from ncjax.data import Streamed
from ncjax.data.streamed import in_order
from ncjax.distributed.mesh import MEMBER
from ncjax.distributed.sharding import put
from ncjax.storage.read_ahead import read_ahead
from ncjax.training.members import StreamedChunk, example_order

Index = tuple[slice, ...]  # the shard of one device
RowsOf = Callable[[int, Index], Int32[np.ndarray, "..."]]  # images of entry `number` in a shard; from any thread
BLOCK_BYTES = 2**26  # of the batches that are on the devices at once


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Where the training images of a run are read, and how they are sharded."""

    images: UInt8[np.ndarray, "n h w ch"] | Streamed
    seeds: Int32[np.ndarray, "p g"]  # of the sequences of every shard
    slot: Int32[np.ndarray, "s"]
    batch: int
    steps_per_epoch: int
    chunk_steps: int
    mesh: Mesh

    @property
    def sharding(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(None, "member", None, "data"))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.chunk_steps, *self.seeds.shape, self.batch, *self.images.shape[1:])


def make_feed(
    images: UInt8[np.ndarray, "n h w ch"] | Streamed,
    seeds: Int32[np.ndarray, "s"],
    mesh: Mesh,
    *,
    batch: int,
    chunk_steps: int,
) -> Feed:
    """The feed of members with these seeds, in their order.

    Args:
        images: training images.
        seeds: of all members; their number is a multiple of the mesh's member axis.
        mesh: of the run.
        batch: images in a step of a member.
        chunk_steps: steps whose images are sent at once.
    """
    shards = seeds.reshape(mesh.shape["member"], -1)
    distinct = [np.unique(shard) for shard in shards]
    most, pairs = max(map(len, distinct)), zip(distinct, shards, strict=True)
    return Feed(
        images=images,
        seeds=np.stack([np.pad(d, (0, most - len(d)), mode="edge") for d in distinct]),
        slot=np.concatenate([np.searchsorted(d, shard) for d, shard in pairs]).astype(np.int32),
        batch=batch,
        steps_per_epoch=images.shape[0] // batch,
        chunk_steps=chunk_steps,
        mesh=mesh,
    )


def chunk_shapes(feed: Feed) -> StreamedChunk:
    """The shapes and shardings of a chunk: for compiling."""
    slot = put(feed.slot, NamedSharding(feed.mesh, MEMBER))
    return StreamedChunk(jax.ShapeDtypeStruct(feed.shape, np.uint8, sharding=feed.sharding), slot)  # type: ignore[arg-type]


def chunks(feed: Feed, first: int, total: int) -> Generator[StreamedChunk, None, None]:
    """The images of each chunk of steps, from step `first` to the end; the next one is read while one is used.

    A chunk has `chunk_steps` steps, fewer where its epoch ends: then what follows in it is zero. This process reads the
    images of its own devices alone, each once in a step.

    Args:
        feed: what `make_feed` made.
        first: number of the first step.
        total: steps of the whole run.

    Raises:
        UserError: an image cannot be read (it is named).
    """

    def end(step: int) -> int:
        return min(step + feed.chunk_steps, (step // feed.steps_per_epoch + 1) * feed.steps_per_epoch, total)

    slot = chunk_shapes(feed).slot
    arrays = _put(feed.images, _rows(feed), feed.shape, feed.sharding, range(first, total), end)
    with closing(arrays):
        for pixels in arrays:
            yield StreamedChunk(pixels, slot)


def batches(
    images: UInt8[np.ndarray, "n h w ch"] | Streamed, size: int, mesh: Mesh, *, parts: int = 1
) -> Generator[UInt8[Array, "k b h w ch"], None, None]:
    """All images, some batches at a time, a block; the rest of the last block is 0.

    Args:
        images: of a split.
        size: of a batch.
        mesh: of the run; each batch is sharded over its data axis.
        parts: how `block_rows` orders the images of a block; 1: as they are.

    Raises:
        UserError: an image cannot be read (it is named).
    """
    count, at_once = -(-len(images) // size), batches_at_once(images, size)
    shape, sharding = (at_once, size, *images.shape[1:]), NamedSharding(mesh, PartitionSpec(None, "data"))

    def rows(number: int, part: Index) -> np.ndarray:
        first = number - number % at_once
        block = block_rows(first * size, min(at_once, count - first), size, parts, len(images))
        return block[number - first][part[1]]

    return _put(images, rows, shape, sharding, range(count), lambda number: min(number + at_once, count))


def batches_at_once(images: UInt8[np.ndarray, "n h w ch"] | Streamed, size: int) -> int:
    """Batches in a block of `batches`."""
    return min(-(-len(images) // size), max(1, BLOCK_BYTES // (size * math.prod(images.shape[1:]))))


def block_rows(first: int, count: int, size: int, parts: int, examples: int) -> Int32[np.ndarray, "k b"]:
    """The examples of each batch of a block: each part of the batches has examples of its own, one after the other.

    Args:
        first: example of the block.
        count: batches in it.
        size: of a batch.
        parts: equal parts of a batch, as many as devices along the data axis, or 1.
        examples: of the split; beyond its end the last one is repeated.
    """
    own = size // parts
    batch, place = np.indices((count, size))
    rows = first + (place // own * count + batch) * own + place % own
    return np.minimum(rows, examples - 1).astype(np.int32)


def _rows(feed: Feed) -> RowsOf:
    """The images of the sequences of a shard in a step."""
    parts = feed.sharding.addressable_devices_indices_map(feed.shape).values()
    needed = np.unique(np.concatenate([feed.seeds[part[1]].reshape(-1) for part in parts if part]))
    order = jax.jit(example_order, static_argnums=2)
    known: dict[int, Int32[np.ndarray, "seeds n"]] = {}
    lock = threading.Lock()

    def orders(epoch: int) -> Int32[np.ndarray, "seeds n"]:
        with lock:
            if epoch not in known:
                if len(known) == 2:
                    del known[min(known)]
                known[epoch] = np.asarray(order(needed, np.int32(epoch), len(feed.images)))
            return known[epoch]

    def rows(step: int, part: Index) -> Int32[np.ndarray, "p g b"]:
        epoch, number = divmod(step, feed.steps_per_epoch)
        batch = np.arange(number * feed.batch, (number + 1) * feed.batch)[part[3]]
        return orders(epoch)[np.searchsorted(needed, feed.seeds[part[1]])[..., None], batch]

    return rows


class _Entry(NamedTuple):
    """The images of one entry of an array that this process needs, each once."""

    images: UInt8[np.ndarray, "m h w ch"]
    positions: list[np.ndarray]  # for each shard of this process, where its images are among them


def _put(
    images: UInt8[np.ndarray, "n h w ch"] | Streamed,
    rows: RowsOf,
    shape: tuple[int, ...],
    sharding: NamedSharding,
    numbers: range,
    end: Callable[[int], int],
) -> Generator[UInt8[Array, "t ..."], None, None]:
    """Arrays for all numbers in order, each from a number `k` up to `end(k)`: of `images[rows(number)]`, then zeros."""
    shards: list[Index] = []  # of the devices of this process
    for index in sharding.addressable_devices_indices_map(shape).values():
        assert index is not None
        shards += [] if index in shards else [index]

    def read(number: int) -> _Entry:
        wanted = [rows(number, shard) for shard in shards]
        distinct, flat = np.unique(np.concatenate([rows.reshape(-1) for rows in wanted]), return_inverse=True)
        split = np.split(flat.reshape(-1), np.cumsum([rows.size for rows in wanted])[:-1])
        positions = [part.reshape(rows.shape) for part, rows in zip(split, wanted, strict=True)]
        return _Entry(images[distinct], positions)

    def content(entries: list[_Entry], index: Index) -> np.ndarray:
        which = shards.index(index)
        pixels = np.zeros((shape[0], *entries[0].positions[which].shape, *shape[-3:]), np.uint8)
        for i, entry in enumerate(entries):
            pixels[i] = entry.images[entry.positions[which]]
        return pixels

    def arrays() -> Generator[Array, None, None]:
        at = numbers.start
        with closing(in_order(read, numbers, shape[0])) as entries:
            while at < numbers.stop:
                block = [next(entries) for _ in range(at, end(at))]
                yield jax.make_array_from_callback(shape, sharding, partial(content, block))
                at = end(at)

    return read_ahead(arrays())
