# SPDX-License-Identifier: Apache-2.0
"""Members that were trained in several parts, as if they had been trained together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from ncjax.errors import UserError
from ncjax.features.feature_set import FeatureSet, Heads, SplitFeatures, whole
from ncjax.features.store import RunMembers
from ncjax.results import TrainingSummary
from ncjax.storage.arrays import Rows
from ncjax.training.losses import LOWEST
from ncjax.training.state import TrainState

Order = Sequence[int]  # of the members of all parts, the first part's first


def join_features(parts: Sequence[FeatureSet], described: RunMembers) -> FeatureSet:
    """The features of all parts in the order of the run, of the layers that all parts have.

    Outputs that the network of a part lacks are padded: logits and biases are those of a class that a member has not
    (`LOWEST`), weights 0.

    Args:
        parts: of one epoch, on the same examples.
        described: the members of the run; those that are in no part are left out.
    """
    if len(parts) == 1 and parts[0].names == tuple(described.members):
        return parts[0]
    names = [name for part in parts for name in part.names]
    there = tuple(name for name in described.members if name in names)
    order = [names.index(name) for name in there]
    tests = [part.test for part in parts if part.test is not None]
    heads = [part.classifier for part in parts if part.classifier is not None]
    return replace(
        parts[-1],
        train=_join_split([part.train for part in parts], order),
        test=_join_split(tests, order) if len(tests) == len(parts) else None,
        names=there,
        members=tuple(described.members[name] for name in there),
        classifier=_join_heads(heads, order) if len(heads) == len(parts) else None,
        default_map=described.default_map,
    )


def _join_split(parts: Sequence[SplitFeatures], order: Order) -> SplitFeatures:
    common = [layer for layer in parts[0].layers if all(layer in part.layers for part in parts)]
    logits = [part.logits for part in parts if part.logits is not None]
    targets = [part.targets for part in parts if part.targets is not None]
    return SplitFeatures(
        layers={layer: _join_rows([part.layers[layer] for part in parts], order) for layer in common},
        labels=parts[0].labels,
        logits=_join_logits(logits, order) if len(logits) == len(parts) else None,
        targets=np.concatenate(targets)[list(order)] if len(targets) == len(parts) else None,
    )


def _join_rows(parts: Sequence[Any], order: Order) -> Float[np.ndarray, "s n d"] | Sequence[Rows]:
    rows = [one for part in parts for one in part]
    chosen = [rows[number] for number in order]
    return np.stack(chosen) if all(isinstance(one, np.ndarray) for one in chosen) else tuple(chosen)


def _join_logits(parts: Sequence[Any], order: Order) -> Float[np.ndarray, "s n c"] | Sequence[Rows]:
    """On disk where they lie there and have as many classes; others are held."""
    if len({part[0].shape for part in parts}) == 1:
        return _join_rows(parts, order)
    return _join_padded([whole(part) for part in parts], order, LOWEST)


def _join_heads(heads: Sequence[Heads], order: Order) -> Heads:
    return Heads(
        _join_padded([one.weights for one in heads], order, 0.0),
        _join_padded([one.bias for one in heads], order, LOWEST),
    )


def _join_padded(arrays: Sequence[np.ndarray], order: Order, fill: float) -> Shaped[np.ndarray, "s ... c"]:
    """Arrays `[s ... c]` of different members and numbers of classes."""
    classes = max(array.shape[-1] for array in arrays)

    def padded(array: np.ndarray) -> np.ndarray:
        missing = [(0, 0)] * (array.ndim - 1) + [(0, classes - array.shape[-1])]
        return np.pad(array, missing, constant_values=fill)

    return np.concatenate([padded(array) for array in arrays])[list(order)]


def join_summaries(parts: Sequence[TrainingSummary]) -> TrainingSummary:
    """How training went, one part after the other; the first says what holds for all."""
    return replace(
        parts[0],
        compile_secs=sum(part.compile_secs or 0 for part in parts),
        train_secs=sum(part.train_secs or 0 for part in parts),
        failures=tuple(line for part in parts for line in part.failures),
    )


def join_states(states: Mapping[str, TrainState], order: Order) -> TrainState:
    """The states of all parts, by a name for each, in the order of the run.

    Raises:
        UserError: they are of different steps, or their networks have different numbers of outputs.
    """
    steps = {name: int(state.step) for name, state in states.items()}
    if len(set(steps.values())) > 1:
        listed = ", ".join(f"{name}: {step}" for name, step in steps.items())
        raise UserError(f"the newest checkpoints are of different steps ({listed}); ask for an epoch, or for a part")
    shapes = [jax.tree.map(lambda leaf: leaf.shape[1:], state.members) for state in states.values()]
    if any(one != shapes[0] for one in shapes):
        raise UserError("the members were added with other numbers of classes; ask for each part: run.parts[0].state()")
    rows = np.asarray(order)
    parts = list(states.values())
    members = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[rows], *(one.members for one in parts))
    return TrainState(members, parts[0].step)
