# SPDX-License-Identifier: Apache-2.0
"""What an evaluation keeps of its examples beside numbers: reconstructed labels, and some examples to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8

from ncjax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Reconstructed labels in one view, for every row `s` of an evaluation; -1 where there is none.

    Clusters are numbered over all super-classes, `k` at most in a row.

    Attributes:
        train: cluster of each training example.
        test: cluster of each test example: the nearest centroid in its super-class; None where the view cannot embed
            new points.
        super_class: coarse label of each cluster.
        matching: the fine class that each cluster stands for (Hungarian method on the training split).
        embedding: where the training examples lie, for views that embed them in a plane; NaN for those that only vote.
    """

    train: Int[np.ndarray, "s n"]
    test: Int[np.ndarray, "s m"] | None
    super_class: Int[np.ndarray, "s k"]
    matching: Int[np.ndarray, "s k"]
    embedding: Float[np.ndarray, "s n p"] | None = None

    @property
    def recovered_train(self) -> Int[np.ndarray, "s n"]:
        """The fine class that each training example's cluster stands for; -1 where there is none."""
        return _matched(self.matching, self.train)

    @property
    def recovered_test(self) -> Int[np.ndarray, "s m"] | None:
        """The same of the test split."""
        return None if self.test is None else _matched(self.matching, self.test)


def _matched(matching: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    found = np.take_along_axis(matching, np.maximum(clusters, 0), axis=1)
    return np.where(clusters >= 0, found, -1)


class Planes(NamedTuple):
    """Where the chosen examples of one network lie on principal axes; NaN for features that are not finite."""

    whole: Float32[np.ndarray, "q 2"]  # of all chosen examples
    inside: Float32[np.ndarray, "q 2"]  # of those of the same super-class


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The true labels of an evaluation, and some training examples to look at.

    Attributes:
        train_labels: fine labels of the training split.
        test_labels: of the test split; None: there is none.
        rows: which training examples are chosen, in order.
        thumbnails: their images; None: features came without images.
        epoch: that `planes` are of; None: not known.
        planes: of some networks, by name.
    """

    train_labels: Int32[np.ndarray, "n"]
    test_labels: Int32[np.ndarray, "m"] | None = None
    rows: Int32[np.ndarray, "q"]
    thumbnails: UInt8[np.ndarray, "q h w ch"] | None = None
    epoch: int | None = None
    planes: Mapping[str, Planes] = field(default_factory=dict)


def stack_clusters(parts: Sequence[tuple[Clusters | None, int]]) -> Clusters:
    """Clusters of some rows behind those of others; None stands for so many rows without."""
    present = [part for part, _ in parts if part is not None]
    sizes = {tuple(x.shape[1] for x in (part.train, part.test) if x is not None) for part in present}
    if len({size[:1] for size in sizes}) > 1 or len({size for size in sizes if len(size) == 2}) > 1:
        raise UserError("results of different examples cannot be joined; evaluate them one by one")
    widest = max(part.matching.shape[1] for part in present)

    def stacked(name: str, fill: Any) -> Any:
        arrays = [getattr(part, name) if part is not None else None for part, _ in parts]
        known = [array for array in arrays if array is not None]
        if not known:
            return None
        shape = (widest,) if name in ("super_class", "matching") else known[0].shape[1:]
        rows = []
        for array, (_, count) in zip(arrays, parts, strict=True):
            whole = np.full((count, *shape), fill, known[0].dtype)
            if array is not None:
                whole[:, : array.shape[1]] = array
            rows.append(whole)
        return np.concatenate(rows)

    return Clusters(
        train=stacked("train", -1),
        test=stacked("test", -1),
        super_class=stacked("super_class", -1),
        matching=stacked("matching", -1),
        embedding=stacked("embedding", np.nan),
    )
