# SPDX-License-Identifier: Apache-2.0
"""Clustering of features."""

from ncjax.cluster.kmeans import KMeansResult, kmeans
from ncjax.cluster.matching import match_clusters

__all__ = ["KMeansResult", "kmeans", "match_clusters"]
