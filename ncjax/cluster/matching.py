# SPDX-License-Identifier: Apache-2.0
"""Matching of clusters to classes, and scores of their agreement."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32
from scipy.optimize import linear_sum_assignment


def match_clusters(
    clusters: Int32[np.ndarray, "n"], classes: Int32[np.ndarray, "n"], allowed: Bool[np.ndarray, "k f"]
) -> Int32[np.ndarray, "k"]:
    """The one-to-one map of clusters to classes under which most examples agree (Hungarian method, Kuhn 1955).

    Args:
        clusters: cluster of each example, in `0..k-1`.
        classes: class of each example, in `0..f-1`.
        allowed: the classes that each cluster may be matched to; clusters and classes must pair up completely.

    Returns:
        The class of each cluster.
    """
    counts = np.zeros(allowed.shape, np.int64)
    np.add.at(counts, (clusters, classes), 1)
    rows, columns = linear_sum_assignment(np.where(allowed, counts, -1 - counts.sum()), maximize=True)
    matching = np.empty(allowed.shape[0], np.int32)
    matching[rows] = columns
    return matching


class ClusterScores(NamedTuple):
    """Agreement of clusters with classes; 1 is perfect."""

    accuracy: float  # share of examples whose cluster is matched to their class (Hungarian method)
    purity: float  # share of examples in the largest class of their cluster
    ari: float  # adjusted Rand index, about 0 by chance
    nmi: float  # normalised mutual information
    ami: float  # adjusted mutual information, about 0 by chance


def score_against_classes(clusters: Int32[np.ndarray, "n"], classes: Int32[np.ndarray, "n"]) -> ClusterScores:
    """Accuracy, purity, ARI, NMI and AMI; numbers of clusters and classes may differ."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(classes, clusters)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return ClusterScores(
        accuracy=float(counts[rows, columns].sum() / len(classes)),
        purity=float(counts.max(axis=0).sum() / len(classes)),
        ari=float(adjusted_rand_score(classes, clusters)),
        nmi=float(normalized_mutual_info_score(classes, clusters)),
        ami=float(adjusted_mutual_info_score(classes, clusters)),
    )
