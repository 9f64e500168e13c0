# SPDX-License-Identifier: Apache-2.0
"""Streams images to the devices: those of training a chunk of steps at a time, in the order of the resident path."""

import math
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32, Int64, Integer, UInt8

from ncjax.data import Streamed
from ncjax.data.workers import in_order
from ncjax.distributed.mesh import MEMBER
from ncjax.distributed.sharding import put
from ncjax.storage.read_ahead import read_ahead
from ncjax.training.members import StreamedChunk, example_order

Pixels = UInt8[np.ndarray, "n h w ch"] | Streamed
Index = tuple[slice, ...]  # the shard of one device
IdsOf = Callable[[int, Index], Integer[np.ndarray, "..."]]  # what entry `number` has in a shard; from any thread
Read = Callable[[int, Integer[np.ndarray, "m"]], UInt8[np.ndarray, "m h w ch"]]  # images of an entry by their ids
BLOCK_BYTES = 2**26  # of the batches that are on the devices at once
DECODED = 16
_one_order = threading.Lock()


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
    workers: int = 0  # processes that decode

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
    workers: int = 0,
) -> Feed:
    """The feed of members with these seeds, in their order.

    Args:
        images: training images.
        seeds: of all members; their number is a multiple of the mesh's member axis.
        mesh: of the run.
        batch: images in a step of a member.
        chunk_steps: steps whose images are sent at once.
        workers: processes that decode, as for `in_order`.
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
        workers=workers,
    )


def chunk_shapes(feed: Feed) -> StreamedChunk:
    """The shapes and shardings of a chunk: for compiling."""
    pixels = jax.ShapeDtypeStruct(feed.shape, np.uint8, sharding=feed.sharding)
    rows = jax.ShapeDtypeStruct(feed.shape[:4], np.int32, sharding=feed.sharding)
    return StreamedChunk(pixels, rows, put(feed.slot, NamedSharding(feed.mesh, MEMBER)))  # type: ignore[arg-type]


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

    slot, (ids, read) = chunk_shapes(feed).slot, _training_images(feed)
    sizes = {"most": _most(feed.images), "workers": feed.workers if isinstance(feed.images, Streamed) else 0}
    arrays = _put(read, ids, feed.shape, feed.sharding, range(first, total), end, **sizes)
    at = first
    with closing(arrays):
        for pixels in arrays:
            yield StreamedChunk(pixels, _rows(feed, ids, range(at, end(at))), slot)
            at = end(at)


def _rows(feed: Feed, ids: IdsOf, steps: range) -> Int32[Array, "t p g b"]:
    """Which of the training images stand in the steps of a chunk."""

    def content(index: Index | None) -> Int32[np.ndarray, "t p g b"]:
        assert index is not None
        found = [ids(step, index) % len(feed.images) for step in steps]
        return np.pad(np.stack(found).astype(np.int32), ((0, feed.chunk_steps - len(steps)), (0, 0), (0, 0), (0, 0)))

    return jax.make_array_from_callback(feed.shape[:4], feed.sharding, content)


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

    def read(number: int, rows: np.ndarray) -> np.ndarray:
        return images[rows]

    def end(number: int) -> int:
        return min(number + at_once, count)

    return _put(read, rows, shape, sharding, range(count), end, most=_most(images))


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


def _most(images: UInt8[np.ndarray, "n h w ch"] | Streamed) -> int:
    """How many images are read at a go: few where they are decoded, so that every thread or process has some."""
    return DECODED if isinstance(images, Streamed) else len(images)


def _training_images(feed: Feed) -> tuple[IdsOf, Read]:
    """What stands in a step of a shard, and how it is read: the rows in the order of the seed, or crops of them.

    Both can be pickled. A crop has the id `sequence * n + row`: it is a function of the seed, the epoch and the row.
    """
    devices = feed.sharding.addressable_devices_indices_map(feed.shape).values()
    needed = np.unique(np.concatenate([feed.seeds[part[1]].reshape(-1) for part in devices if part]))
    order = _Order(needed, feed.seeds, feed.batch, feed.steps_per_epoch, len(feed.images))
    if isinstance(feed.images, Streamed) and feed.images.reader.crop is not None:
        return partial(_ids, order, True), partial(_read_crops, feed.images, order)
    return partial(_ids, order, False), partial(_read_rows, feed.images)


class _Order(NamedTuple):
    """What gives the training images of a step."""

    needed: Int32[np.ndarray, "seeds"]  # of the sequences of this process, each once
    seeds: Int32[np.ndarray, "p g"]
    batch: int
    per_epoch: int
    examples: int


def _ids(order: _Order, cropped: bool, step: int, part: Index) -> Int64[np.ndarray, "p g b"]:
    epoch, number = divmod(step, order.per_epoch)
    chosen = np.arange(number * order.batch, (number + 1) * order.batch)[part[3]]
    sequence = np.searchsorted(order.needed, order.seeds[part[1]])[..., None]
    rows = _orders(tuple(order.needed.tolist()), epoch, order.examples)[sequence, chosen].astype(np.int64)
    return rows + order.examples * sequence if cropped else rows


def _read_rows(images: Pixels, step: int, ids: Int64[np.ndarray, "m"]) -> UInt8[np.ndarray, "m h w ch"]:
    return images[ids]


def _read_crops(
    images: Streamed, order: _Order, step: int, ids: Int64[np.ndarray, "m"]
) -> UInt8[np.ndarray, "m h w ch"]:
    seeds = order.needed[ids // order.examples]
    return images.random_crops(ids % order.examples, seeds, step // order.per_epoch)


def _orders(seeds: tuple[int, ...], epoch: int, examples: int) -> Int32[np.ndarray, "seeds n"]:
    """`example_order`, made once."""
    with _one_order:
        return _make_orders(seeds, epoch, examples)


@lru_cache(maxsize=2)
def _make_orders(seeds: tuple[int, ...], epoch: int, examples: int) -> Int32[np.ndarray, "seeds n"]:
    return np.asarray(_compiled_order(np.array(seeds, np.int32), np.int32(epoch), examples))


_compiled_order = jax.jit(example_order, static_argnums=2)


class _Entry(NamedTuple):
    """The images of one entry of an array that this process needs, each once."""

    parts: list[UInt8[np.ndarray, "_ h w ch"]]  # in the order of their ids
    positions: list[np.ndarray]  # for each shard of this process, where its images are among them


def _put(
    read: Read,
    ids: IdsOf,
    shape: tuple[int, ...],
    sharding: NamedSharding,
    numbers: range,
    end: Callable[[int], int],
    *,
    most: int,
    workers: int = 0,
) -> Generator[UInt8[Array, "t ..."], None, None]:
    """Arrays for all numbers in order, each from a number `k` up to `end(k)`: what is read of these, then zeros.

    Threads, or workers, read up to `most` images of an entry at a go.
    """
    shards = _shards(sharding, shape)
    parts = -(-len(shards) * math.prod(sharding.shard_shape(shape)[1:-3]) // most)

    def entry(number: int, images: Iterator[np.ndarray]) -> _Entry:
        wanted = [ids(number, shard) for shard in shards]
        _, flat = np.unique(np.concatenate([one.reshape(-1) for one in wanted]), return_inverse=True)
        split = np.split(flat.reshape(-1), np.cumsum([one.size for one in wanted])[:-1])
        positions = [part.reshape(one.shape) for part, one in zip(split, wanted, strict=True)]
        return _Entry([next(images) for _ in range(parts)], positions)

    def content(entries: list[_Entry], index: Index) -> np.ndarray:
        which = shards.index(index)
        pixels = np.zeros((shape[0], *entries[0].positions[which].shape, *shape[-3:]), np.uint8)
        for target, one in zip(pixels, entries, strict=False):
            _fill(target, one.parts, one.positions[which])
        return pixels

    def arrays() -> Generator[Array, None, None]:
        at, places = numbers.start, range(parts * numbers.start, parts * numbers.stop)
        with closing(
            in_order(partial(_read_part, read, ids, shards, parts), places, parts * shape[0], workers)
        ) as images:
            while at < numbers.stop:
                block = [entry(number, images) for number in range(at, end(at))]
                yield jax.make_array_from_callback(shape, sharding, partial(content, block))
                at = end(at)

    return read_ahead(arrays())


def _shards(sharding: NamedSharding, shape: tuple[int, ...]) -> list[Index]:
    """Those of the devices of this process, each once."""
    found: list[Index] = []
    for index in sharding.addressable_devices_indices_map(shape).values():
        assert index is not None
        found += [] if index in found else [index]
    return found


def _read_part(read: Read, ids: IdsOf, shards: list[Index], parts: int, place: int) -> UInt8[np.ndarray, "_ h w ch"]:
    """One of the `parts` parts of an entry."""
    number, part = divmod(place, parts)
    distinct = np.unique(np.concatenate([ids(number, shard).reshape(-1) for shard in shards]))
    return read(number, np.array_split(distinct, parts)[part])


def _fill(
    target: UInt8[np.ndarray, "*b h w ch"], parts: list[UInt8[np.ndarray, "_ h w ch"]], positions: np.ndarray
) -> None:
    """Copies the images at these positions in all parts together."""
    images, flat, first = target.reshape(-1, *target.shape[-3:]), positions.reshape(-1), 0
    for part in parts:
        here = (first <= flat) & (flat < first + len(part))
        images[here] = part[flat[here] - first]
        first += len(part)
