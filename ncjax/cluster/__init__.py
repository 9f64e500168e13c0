# SPDX-License-Identifier: Apache-2.0
"""Clustering of features."""

from ncjax.cluster.choose import ClusterCounts, choose_k
from ncjax.cluster.solver import KMeansResult, kmeans
from ncjax.cluster.matching import ClusterScores, match_clusters, score_against_classes
from ncjax.cluster.sharded import sharded_kmeans
from ncjax.cluster.streamed import stream_kmeans

__all__ = [
    "ClusterCounts",
    "ClusterScores",
    "KMeansResult",
    "choose_k",
    "kmeans",
    "match_clusters",
    "score_against_classes",
    "sharded_kmeans",
    "stream_kmeans",
]
