# SPDX-License-Identifier: Apache-2.0
"""Training images that come to the devices a chunk of steps at a time, in the order of the resident path."""

import math
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32, UInt8

from ncjax.data import Streamed
from ncjax.data.streamed import in_order
from ncjax.training.members import Fed, example_order
from ncjax.distributed.mesh import MEMBER, put

T = TypeVar("T")
Index = tuple[slice, ...]  # a part of an array that lies on one device
Rows = Callable[[int, Index], Int32[np.ndarray, "..."]]  # images of entry `number` in a part; from any thread
BLOCK_BYTES = 2**26  # of the batches that are on the devices at once


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Where the training images of a run come from, and where they go."""

    images: UInt8[np.ndarray, "n h w ch"] | Streamed
    seeds: Int32[np.ndarray, "p g"]  # of the sequences of every place
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
        seeds: of all members; their number is a multiple of the places along the mesh's member axis.
        mesh: of the run.
        batch: images in a step of a member.
        chunk_steps: steps that are fed at once.
    """
    places = seeds.reshape(mesh.shape["member"], -1)
    distinct = [np.unique(place) for place in places]
    most, pairs = max(map(len, distinct)), zip(distinct, places, strict=True)
    return Feed(
        images=images,
        seeds=np.stack([np.pad(d, (0, most - len(d)), mode="edge") for d in distinct]),
        slot=np.concatenate([np.searchsorted(d, place) for d, place in pairs]).astype(np.int32),
        batch=batch,
        steps_per_epoch=images.shape[0] // batch,
        chunk_steps=chunk_steps,
        mesh=mesh,
    )


def fed_like(feed: Feed) -> Fed:
    """The shapes and places of what is fed: for compiling."""
    slot = put(feed.slot, NamedSharding(feed.mesh, MEMBER))
    return Fed(jax.ShapeDtypeStruct(feed.shape, np.uint8, sharding=feed.sharding), slot)  # type: ignore[arg-type]


def chunks(feed: Feed, first: int, total: int) -> Generator[Fed, None, None]:
    """What each chunk of steps needs, from step `first` to the end; the next one is made ready while one is used.

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

    slot = fed_like(feed).slot
    arrays = _put(feed.images, _rows(feed), feed.shape, feed.sharding, range(first, total), end)
    with closing(arrays):
        for pixels in arrays:
            yield Fed(pixels, slot)


def batches(
    images: UInt8[np.ndarray, "n h w ch"] | Streamed, size: int, mesh: Mesh
) -> Generator[UInt8[Array, "k b h w ch"], None, None]:
    """All images in their order, some batches at a time; the last image fills up the last batch, zeros the rest.

    Args:
        images: of a split.
        size: of a batch.
        mesh: of the run; each batch is spread over its data axis.

    Raises:
        UserError: an image cannot be read (it is named).
    """
    count = -(-len(images) // size)
    at_once = min(count, max(1, BLOCK_BYTES // (size * math.prod(images.shape[1:]))))
    shape, sharding = (at_once, size, *images.shape[1:]), NamedSharding(mesh, PartitionSpec(None, "data"))

    def rows(number: int, part: Index) -> np.ndarray:
        return np.minimum(np.arange(number * size, (number + 1) * size), len(images) - 1)[part[1]]

    return _put(images, rows, shape, sharding, range(count), lambda number: min(number + at_once, count))


def _rows(feed: Feed) -> Rows:
    """The images of the sequences of a part in a step."""
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
        epoch, place = divmod(step, feed.steps_per_epoch)
        batch = np.arange(place * feed.batch, (place + 1) * feed.batch)[part[3]]
        return orders(epoch)[np.searchsorted(needed, feed.seeds[part[1]])[..., None], batch]

    return rows


def _put(
    images: UInt8[np.ndarray, "n h w ch"] | Streamed,
    rows: Rows,
    shape: tuple[int, ...],
    sharding: NamedSharding,
    numbers: range,
    end: Callable[[int], int],
) -> Generator[UInt8[Array, "t ..."], None, None]:
    """Arrays for all numbers in order, each from a number `k` up to `end(k)`: of `images[rows(number)]`, then zeros."""
    parts: list[Index] = []  # that lie on devices of this process
    for index in sharding.addressable_devices_indices_map(shape).values():
        assert index is not None
        parts += [] if index in parts else [index]

    def read(number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """The images that this process needs, each once, and where each part finds its own among them."""
        wanted = [rows(number, part) for part in parts]
        distinct, places = np.unique(np.concatenate([part.reshape(-1) for part in wanted]), return_inverse=True)
        split = np.split(places.reshape(-1), np.cumsum([part.size for part in wanted])[:-1])
        return images[distinct], [flat.reshape(part.shape) for flat, part in zip(split, wanted, strict=True)]

    def content(seen: list[tuple[np.ndarray, list[np.ndarray]]], index: Index) -> np.ndarray:
        which = parts.index(index)
        pixels = np.zeros((shape[0], *seen[0][1][which].shape, *shape[-3:]), np.uint8)
        for i, (found, places) in enumerate(seen):
            pixels[i] = found[places[which]]
        return pixels

    def arrays() -> Generator[Array, None, None]:
        at = numbers.start
        with closing(in_order(read, numbers, shape[0])) as entries:
            while at < numbers.stop:
                seen = [next(entries) for _ in range(at, end(at))]
                yield jax.make_array_from_callback(shape, sharding, partial(content, seen))
                at = end(at)

    return _one_ahead(arrays())


def _one_ahead(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """The same items; each is made, in a thread, while the one before is used."""
    with closing(items), ThreadPoolExecutor(1) as pool:
        ready = pool.submit(next, items, None)
        while (item := ready.result()) is not None:
            ready = pool.submit(next, items, None)
            yield item
