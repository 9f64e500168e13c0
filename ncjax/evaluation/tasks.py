# SPDX-License-Identifier: Apache-2.0
"""What is measured of a network by probes and clusters: its finite rows, and what is asked."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32

from ncjax.collapse.reading import Labelled
from ncjax.distributed.processes import is_distributed
from ncjax.distributed.sharding import gather_rows
from ncjax.evaluation.clusters import Examples
from ncjax.evaluation.networks import Network
from ncjax.storage.arrays import ChosenRows, Rows


class Options(NamedTuple):
    """What is asked of every network.

    Attributes:
        views: names in `VIEWS`.
        restarts: of k-means.
        seed: of k-means and of the draws of the few-shot probe.
        memory_bytes: that may be taken.
    """

    views: tuple[str, ...]
    restarts: int
    seed: int
    memory_bytes: int


class Task(NamedTuple):
    """A network with its finite rows; of a missing test split there are none."""

    network: Network
    examples: Examples
    kept: Mapping[str, Int32[np.ndarray, "_"]]  # their row numbers in the split


def make_task(network: Network) -> Task:
    """The rows that hold numbers alone."""
    splits = {"train": network.train, "test": network.test or _none_like(network.train)}
    kept = {name: np.flatnonzero(split.counts > 0).astype(np.int32) for name, split in splits.items()}
    rows = {name: _rows(split, kept[name]) for name, split in splits.items()}
    fine = {name: split.fine[kept[name]] for name, split in splits.items()}
    return Task(network, Examples(rows, fine, network.super_class), kept)


def _rows(split: Labelled, kept: Int32[np.ndarray, "_"]) -> Rows:
    """Those that count; one of several processes leaves them where they are, and reads its own."""
    if is_distributed():
        return ChosenRows(split.rows, kept)
    whole = np.asarray(split.rows[:], np.float32)
    return whole if len(kept) == len(whole) else whole[kept]


def _none_like(split: Labelled) -> Labelled:
    return Labelled(np.zeros((0, split.rows.shape[1]), np.float32), np.zeros(0, np.int32))


def whole_rows(tasks: Sequence[Task], split: str) -> Float32[np.ndarray, "s _ d"]:
    """The rows of all networks."""
    rows = [np.asarray(task.examples.rows[split][:], np.float32) for task in tasks]
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


def rows_on_devices(tasks: Sequence[Task], split: str, mesh: Mesh | None) -> Float[Array, "s _ d"]:
    """The rows of all networks, sharded over a mesh."""
    if mesh is None:
        return jnp.asarray(whole_rows(tasks, split))
    numbers = np.arange(tasks[0].examples.rows[split].shape[0])
    return gather_rows([(task.examples.rows[split], numbers) for task in tasks], mesh)
