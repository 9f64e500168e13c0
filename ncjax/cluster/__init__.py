# SPDX-License-Identifier: Apache-2.0
"""Clustering of features: k-means, its number of clusters, and the agreement of clusters with classes."""

from ncjax.cluster.in_memory import kmeans
from ncjax.cluster.matching import ClusterScores, match_clusters, score_against_classes
from ncjax.cluster.num_clusters import NumClusters, choose_num_clusters
from ncjax.cluster.sharded import sharded_kmeans
from ncjax.cluster.solver import KMeansResult
from ncjax.cluster.streamed import stream_kmeans

__all__ = [
    "ClusterScores",
    "KMeansResult",
    "NumClusters",
    "choose_num_clusters",
    "kmeans",
    "match_clusters",
    "score_against_classes",
    "sharded_kmeans",
    "stream_kmeans",
]
