# SPDX-License-Identifier: Apache-2.0
"""Views of features larger than memory that are small once they are embedded: residual_pca and tsne."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32

from ncjax.collapse.reading import Labelled
from ncjax.distributed.processes import gather_shares, own_share
from ncjax.evaluation.clusters import NEIGHBOURS, chosen_for_plane
from ncjax.evaluation.streamed_clusters import SuperClasses
from ncjax.evaluation.streamed_moments import by_label, centred_products, parts

PRODUCTS_SHARE = 1 / 4  # of the memory: for second moments of super-classes; more of them take more passes


def products_of_groups(
    data: Labelled, groups: SuperClasses, memory_bytes: int
) -> Iterator[tuple[int, Float64[np.ndarray, "d d"]]]:
    """`sum_i (x_i - M)(x_i - M)^T` of each super-class, in order; a pass over the rows for as many as fit."""
    count, d = groups.means.shape
    size = max(1, int(PRODUCTS_SHARE * memory_bytes) // (8 * d * d))
    for first in range(0, count, size):
        inside = (groups.owner >= first) & (groups.owner < first + size)
        owner = np.where(inside, groups.owner - first, -1).astype(np.int32)
        yield from enumerate(centred_products(data, owner, groups.means[first : first + size]), start=first)


def embed_on_axes(
    data: Labelled, groups: SuperClasses, axes: Float64[np.ndarray, "g d p"]
) -> Float32[np.ndarray, "n p"]:
    """The features minus the mean of their super-class, on its axes, by one pass; 0 for rows that do not count."""
    found = np.zeros((len(data.fine), axes.shape[2]), np.float32)
    for part in parts(data):
        for group, places in by_label(groups.owner[part.numbers]):
            centred = (part.rows[places] - groups.means[group]).astype(np.float32)
            found[part.numbers[places]] = centred @ axes[group]
    return gather_shares(found[own_share(len(found))], len(found))


def rows_of_planes(
    owner: Int32[np.ndarray, "n"], kept: Int[np.ndarray, "q"], sizes: Int[np.ndarray, "g"]
) -> list[Int[np.ndarray, "_"]]:
    """Which rows of each super-class that has some are embedded in a plane, of those that count."""
    own = [(kept[owner[kept] == group], int(sizes[:group].sum())) for group in np.unique(owner[kept])]
    return [rows[chosen_for_plane(len(rows), first)] for rows, first in own]


def vote_for_others(
    data: Labelled, owner: Int32[np.ndarray, "n"], chosen: list[Int[np.ndarray, "_"]], found: Int32[np.ndarray, "m"]
) -> Int32[np.ndarray, "n"]:
    """Every row joins the cluster of most of its nearest among the chosen ones of its super-class, by one pass."""
    from sklearn.neighbors import KNeighborsClassifier

    ends = np.cumsum([len(rows) for rows in chosen])
    voters = {}
    for rows, labels in zip(chosen, np.split(found, ends[:-1]), strict=True):
        own = KNeighborsClassifier(min(NEIGHBOURS, len(rows)))
        voters[int(owner[rows[0]])] = own.fit(np.asarray(data.rows[rows], np.float32), labels)
    labels = np.zeros(len(owner), np.int32)
    for part in parts(data):
        for group, places in by_label(owner[part.numbers]):
            labels[part.numbers[places]] = voters[group].predict(part.rows[places])
    labels = gather_shares(labels[own_share(len(labels))], len(labels)).copy()
    labels[np.concatenate(chosen)] = found
    return labels
