# SPDX-License-Identifier: Apache-2.0
"""Outputs of some members on some examples, as they come from the devices: what is written, or gathered, at once."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int, Shaped

from ncjax.distributed.processes import to_host


class Piece(NamedTuple):
    """Outputs of some members on consecutive examples of a split.

    Attributes:
        split: train or test.
        first: the first example.
        examples: that there are; what is behind them is padding.
        batches: that there are, at the most.
        members: their numbers.
        outputs: by the name of a tensor, of all batches; the members are sharded, and the examples of a batch. Each of
            the `parts` of the batches holds examples of its own, one after the other (`block_rows`).
        parts: of a batch: devices along the data axis.
    """

    split: str
    first: int
    examples: int
    batches: int
    members: Int[np.ndarray, "g"]
    outputs: Mapping[str, Shaped[Array, "k g b x"]]
    parts: int


class MemberRows(NamedTuple):
    """Outputs of one member on consecutive examples."""

    name: str  # of the tensor
    member: int
    first: int
    values: Shaped[np.ndarray, "r x"]


def own_rows(piece: Piece) -> Iterator[MemberRows]:
    """What of a piece is on the devices of this process; of all processes together, everything once."""
    for name, array in piece.outputs.items():
        part = array.shape[2] // piece.parts
        for shard in array.addressable_shards:
            if shard.replica_id:
                continue
            _, members, examples, _ = (axis.indices(n) for axis, n in zip(shard.index, array.shape, strict=True))
            first = examples[0] * piece.batches
            rows = in_order(np.asarray(shard.data)[: piece.batches], (examples[1] - examples[0]) // part)
            for member, values in zip(piece.members[slice(*members)], rows, strict=True):
                kept = values[: max(0, piece.examples - first)]
                if len(kept):
                    yield MemberRows(name, int(member), piece.first + first, kept)


def gather(piece: Piece) -> dict[str, Shaped[np.ndarray, "g n x"]]:
    """The outputs of a piece, whole, in order, on every process."""
    outputs = {name: in_order(to_host(array)[: piece.batches], piece.parts) for name, array in piece.outputs.items()}
    return {name: rows[:, : piece.examples] for name, rows in outputs.items()}


def in_order(batches: Shaped[np.ndarray, "k g b x"], parts: int) -> Shaped[np.ndarray, "g n x"]:
    """The examples of batches, of which each part has its own, one after the other."""
    count, members, size, width = batches.shape
    split = batches.reshape(count, members, parts, size // parts, width)
    return np.ascontiguousarray(split.transpose(1, 2, 0, 3, 4)).reshape(members, count * size, width)
