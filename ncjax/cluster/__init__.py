# SPDX-License-Identifier: Apache-2.0
"""Clustering of features."""

from ncjax.cluster.kmeans import KMeansResult, kmeans
from ncjax.cluster.matching import match_clusters
from ncjax.cluster.sharded import sharded_kmeans
from ncjax.cluster.stream import stream_kmeans

__all__ = ["KMeansResult", "kmeans", "match_clusters", "sharded_kmeans", "stream_kmeans"]
