# SPDX-License-Identifier: Apache-2.0
"""The forward pass of a run's members over a data set, a piece at a time: in eval mode, sharded over the mesh."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32, UInt8

from ncjax.data import Dataset, Split, Streamed
from ncjax.features.pieces import Piece
from ncjax.ops.xla import compiler_options
from ncjax.training.forward import LOGITS, forward, forward_batch
from ncjax.training.loop import PreparedRun
from ncjax.training.state import Spec, TrainState, init_state
from ncjax.training.streaming import batches, batches_at_once, block_rows

PIECE_BYTES = 2**30  # of outputs on a device at once
OutputShapes = Mapping[str, tuple[int, np.dtype[Any]]]  # width and type of each tensor, by name


def output_shapes(prepared: PreparedRun, layers: Sequence[str]) -> OutputShapes:
    """Width and type of each tensor, by name; computes nothing.

    Raises:
        UserError: the network has no such layer.
    """
    spec, images = prepared.spec, prepared.images
    pixels = jax.ShapeDtypeStruct((1, *spec.image_shape), np.uint8)
    state = jax.eval_shape(lambda: init_state(spec, prepared.ensemble))
    found = jax.eval_shape(partial(forward, spec, layers=tuple(layers)), state, pixels, images.mean, images.std)
    return {name: (found[name].shape[2], np.dtype(found[name].dtype)) for name in dict.fromkeys((*layers, LOGITS))}


def pieces_of(
    prepared: PreparedRun, state: TrainState, dataset: Dataset, name: str, shapes: OutputShapes
) -> Iterator[Piece]:
    """The outputs of all members on a split, as many members and examples at once as `PIECE_BYTES` allow."""
    source: Split = getattr(dataset, name)
    spec, layers = prepared.spec, tuple(tensor for tensor in shapes if tensor != LOGITS)
    size, parts = spec.config.optim.batch, spec.mesh.shape["data"]
    each = sum(width * dtype.itemsize for width, dtype in shapes.values())  # bytes of a member and an example
    padded, rows_of_mesh = state.members.nan_step.shape[0], spec.mesh.shape["member"]
    with closing(_blocks(prepared, dataset, name, max(1, PIECE_BYTES // (each * size // parts)))) as blocks:
        for first, count, images in blocks:
            at_once = max(1, min(padded // rows_of_mesh, PIECE_BYTES // (each * count * size // parts)))
            outputs_of = _compiled(layers, at_once, spec.mesh, spec.config.deterministic)
            for group in _groups(padded // rows_of_mesh, at_once):
                outputs = outputs_of(spec, state, *images, prepared.images.mean, prepared.images.std, group)
                members = np.arange(padded, dtype=np.int32).reshape(rows_of_mesh, -1)[:, group : group + at_once]
                examples = min(count * size, len(source.labels) - first)
                yield Piece(name, first, examples, count, members.reshape(-1), outputs, parts)


def _groups(members: int, at_once: int) -> Iterator[int]:
    """First members; the last group overlaps the one before where the others do not divide evenly."""
    yield from (min(first, members - at_once) for first in range(0, members, at_once))


class _Block(NamedTuple):
    """Some batches of images, in the order of `block_rows`."""

    first: int  # example
    batches: int
    images: tuple[Any, Any | None]  # all images and the rows of each batch, or batches `[k b h w ch]`


def _blocks(prepared: PreparedRun, dataset: Dataset, name: str, most: int) -> Generator[_Block, None, None]:
    source: Split = getattr(dataset, name)
    spec, examples = prepared.spec, len(source.labels)
    size, parts = spec.config.optim.batch, spec.mesh.shape["data"]
    if prepared.feed is not None or isinstance(source.images, Streamed):
        at_once = batches_at_once(source.images, size)
        with closing(batches(source.images, size, spec.mesh, parts=parts)) as blocks:
            for number, pixels in enumerate(blocks):
                first = number * at_once * size
                yield _Block(first, min(at_once, -(-(examples - first) // size)), (pixels, None))
        return
    own = dataset is prepared.dataset
    resident = getattr(prepared.images, name) if own else np.asarray(source.images)
    for first in range(0, examples, most * size):
        count = min(most, -(-(examples - first) // size))
        yield _Block(first, count, (resident, block_rows(first, count, size, parts, examples)))


@cache
def _compiled(layers: tuple[str, ...], members: int, mesh: Mesh, deterministic: bool) -> Callable[..., Any]:
    return jax.jit(
        partial(_outputs, layers=layers, members=members),
        static_argnums=0,
        out_shardings=NamedSharding(mesh, PartitionSpec(None, "member", "data")),
        compiler_options=compiler_options(deterministic),
    )


def _outputs(
    spec: Spec,
    state: TrainState,
    pixels: UInt8[Array, "..."],
    rows: Int32[Array, "k b"] | None,
    mean: Float[Array, "ch"],
    std: Float[Array, "ch"],
    first: Int32[Array, ""],
    *,
    layers: tuple[str, ...],
    members: int,
) -> dict[str, Float[Array, "k g b x"]]:
    """`forward_batch` of some members on each row of the mesh, from member `first` of each."""
    chosen = _choose_members(state, spec.mesh, first, members)

    def one_batch(batch: Array) -> dict[str, Array]:
        return forward_batch(spec, chosen, batch if rows is None else pixels[batch], mean, std, layers)

    return lax.map(one_batch, pixels if rows is None else rows)


def _choose_members(state: TrainState, mesh: Mesh, first: Array, members: int) -> TrainState:
    rows = mesh.shape["member"]

    def chosen(leaf: Array) -> Array:
        if leaf.shape[0] == rows * members:
            return leaf
        of_row = leaf.reshape(rows, -1, *leaf.shape[1:])
        return lax.dynamic_slice_in_dim(of_row, first, members, axis=1).reshape(-1, *leaf.shape[1:])

    params, statistics = (jax.tree.map(chosen, tree) for tree in (state.members.params, state.members.batch_stats))
    return state._replace(members=state.members._replace(params=params, batch_stats=statistics))
