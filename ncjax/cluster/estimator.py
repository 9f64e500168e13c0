# SPDX-License-Identifier: Apache-2.0
"""k-means with scikit-learn's interface."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ncjax.cluster.solver import assign_to, kmeans

PADDED = 4096  # points up to so many are filled up to a power of two: few sizes, so few compilations


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """k-means with parameters and attributes of `sklearn.cluster.KMeans`, computed by `ncjax.cluster.solver`.

    Distances are computed in float32; float64 points are centred and scaled in float64 first, so nothing is lost by a
    large offset. Starting points are not scikit-learn's for the same `random_state`. Sparse points are refused.

    Args:
        n_clusters: k.
        init: k-means++ (greedy), random, an array `[k d]`, or a function `(points, k, random_state) -> [k d]`.
        n_init: restarts; auto: 1 for k-means++ and arrays, else 10.
        max_iter: Lloyd steps over all points at most.
        tol: squared movement of the centroids, as a share of the mean variance of the features, at which a run ends.
        random_state: seed.

    Attributes:
        cluster_centers_: `[k d]`.
        labels_: `[n]`, cluster of each point.
        inertia_: sum of weighted squared distances to the nearest centroid.
        n_iter_: steps over all points of the best run.
    """

    def __init__(
        self,
        n_clusters: Any = 8,
        *,
        init: Any = "k-means++",
        n_init: Any = "auto",
        max_iter: Any = 300,
        tol: Any = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "KMeans":  # noqa: N803
        """Cluster the points `[n d]`; of weight 0 are absent ones."""
        points = validate_data(self, X, dtype=[np.float64, np.float32], order="C")
        weights = _check_sample_weight(sample_weight, points, dtype=np.float32, ensure_non_negative=True)
        if len(points) < self.n_clusters:
            raise ValueError(f"n_samples={len(points)} should be >= n_clusters={self.n_clusters}.")
        random = check_random_state(self.random_state)
        starts, restarts = self._starts(points, random)
        self._offset, self._scale = _frame(points)
        init: Any = starts if isinstance(starts, str) else jnp.asarray(self._inside(starts))
        found = kmeans(
            jax.random.key(random.randint(2**31 - 1)),
            self._framed(points),
            self.n_clusters,
            weights=jnp.asarray(_padded(weights)),
            init=init,
            restarts=restarts,
            max_iterations=self.max_iter,
            tol=self.tol,
        )
        self.cluster_centers_ = (np.asarray(found.centroids) * self._scale + self._offset).astype(points.dtype)
        self.inertia_ = float(found.inertia) * self._scale**2
        self.n_iter_ = int(found.iterations)
        self._n_features_out = self.n_clusters
        self._centroids = found.centroids
        absent = not weights.all()  # they have a nearest centroid all the same
        self.labels_ = self._assign(points, None)[0] if absent else np.asarray(found.labels)[: len(points)]
        distinct = len(np.unique(self.labels_))
        if distinct < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({distinct}) found smaller than n_clusters ({self.n_clusters}). "
                "Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The nearest centroid of each point."""
        return self._assign(X, None)[0]

    def fit_predict(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        sample_weight: Any = None,
    ) -> np.ndarray:
        """`fit`, then `labels_`."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Distances `[n k]` of the points to the centroids."""
        check_is_fitted(self)
        points = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return euclidean_distances(points, self.cluster_centers_)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Minus the inertia of these points."""
        return -self._assign(X, sample_weight)[1]

    def _assign(self, given: Any, sample_weight: Any) -> tuple[np.ndarray, float]:
        check_is_fitted(self)
        points = validate_data(self, given, reset=False, dtype=[np.float64, np.float32], order="C")
        weights = _check_sample_weight(sample_weight, points, dtype=np.float32)
        labels, inertia = assign_to(self._framed(points), self._centroids, jnp.asarray(_padded(weights)))
        return np.asarray(labels)[: len(points)], float(inertia) * self._scale**2

    def _starts(self, points: np.ndarray, random: np.random.RandomState) -> tuple[Any, int]:
        """A method or starting centroids `[r k d]`, and the restarts."""
        if isinstance(self.init, str):
            if self.init not in ("k-means++", "random"):
                raise ValueError(f"init is {self.init!r}, but must be k-means++, random, an array or a function")
            return self.init, (1 if self.init == "k-means++" else 10) if self.n_init == "auto" else int(self.n_init)
        if callable(self.init):
            count = 10 if self.n_init == "auto" else int(self.n_init)
            starts = [self.init(points, self.n_clusters, random_state=random) for _ in range(count)]
        else:
            starts = [self.init]
        stacked = np.stack([check_array(start, dtype=points.dtype) for start in starts])
        if stacked.shape[1:] != (self.n_clusters, points.shape[1]):
            raise ValueError(f"init gives {stacked.shape[1:]}, but must give {(self.n_clusters, points.shape[1])}")
        return stacked, len(stacked)

    def _inside(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.float32:
            return values
        return ((values - self._offset) / self._scale).astype(np.float32)

    def _framed(self, points: np.ndarray) -> jax.Array:
        return jnp.asarray(_padded(self._inside(points)))


def _frame(points: np.ndarray) -> tuple[Any, float]:
    """What float64 points lose before they become float32: their mean and their largest distance from it."""
    if points.dtype == np.float32:
        return np.float32(0), 1.0
    offset = points.mean(axis=0)
    return offset, float(np.abs(points - offset).max()) or 1.0


def _padded(values: np.ndarray) -> np.ndarray:
    """With zeros."""
    extra = (1 << (len(values) - 1).bit_length()) - len(values) if len(values) <= PADDED else 0
    return np.pad(values, ((0, extra), *[(0, 0)] * (values.ndim - 1))) if extra else values
