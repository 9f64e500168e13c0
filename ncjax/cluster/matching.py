# SPDX-License-Identifier: Apache-2.0
"""Which class each cluster stands for."""

import numpy as np
from jaxtyping import Bool, Int32
from scipy.optimize import linear_sum_assignment


def match_clusters(
    clusters: Int32[np.ndarray, "n"], classes: Int32[np.ndarray, "n"], allowed: Bool[np.ndarray, "k f"]
) -> Int32[np.ndarray, "k"]:
    """The one-to-one map of clusters to classes under which most examples agree (Hungarian method).

    Args:
        clusters: cluster of each example, in `0..k-1`.
        classes: class of each example, in `0..f-1`.
        allowed: which classes a cluster may stand for; every cluster has as many rivals as there are classes for them.
    """
    counts = np.zeros(allowed.shape, np.int64)
    np.add.at(counts, (clusters, classes), 1)
    rows, columns = linear_sum_assignment(np.where(allowed, counts, -1 - counts.sum()), maximize=True)
    matching = np.empty(allowed.shape[0], np.int32)
    matching[rows] = columns
    return matching
