# SPDX-License-Identifier: Apache-2.0
"""k-means with scikit-learn's interface."""

import warnings
from numbers import Real
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from ncjax.cluster.checks import is_tolerance, is_whole
from ncjax.cluster.in_memory import assign_to, kmeans
from ncjax.storage.arrays import is_tensor, tensor_to_numpy

MAX_PADDED = 4096  # up to so many points are padded to a power of two: few shapes, so few compilations


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """k-means with the parameters and attributes of `sklearn.cluster.KMeans`, computed by `ncjax.kmeans` in JAX.

    Minimises the inertia `sum_i w_i min_j |x_i - c_j|^2` by Lloyd's algorithm from greedy k-means++ (Arthur and
    Vassilvitskii 2007) and a local search (`ncjax.kmeans` says how). Points of any number type: float64 and integers
    are centred in float64 first; what float32 cannot tell apart is computed in float64; `predict` and `score` are in
    float64 always, from `cluster_centers_` as they are. Initial centroids differ from scikit-learn's for the same
    `random_state`. Sparse points are refused.

    Args:
        n_clusters: number of clusters k, from 1 to the number of points.
        init: k-means++ (greedy), random, an array `[k d]`, or a function `(points, k, random_state) -> [k d]`.
        n_init: restarts, at least 1; auto: 1 for k-means++ and arrays, else 10.
        max_iter: Lloyd iterations over all points at most.
        tol: squared movement of the centroids, relative to the mean variance of the features, at which a restart stops.
        random_state: seed.

    Attributes:
        cluster_centers_: `[k d]`, in the dtype of the points.
        labels_: `[n]`, cluster of each point, in `0..k-1`.
        inertia_: sum of weighted squared distances to the nearest centroid, in squared units of the points.
        n_iter_: iterations of the best restart over all points.

    Raises:
        ValueError: by the methods, as scikit-learn's estimators: points or weights do not fit, or are not finite.

    Example:
        >>> import numpy as np
        >>> from ncjax import KMeans
        >>> model = KMeans(2, random_state=0).fit([[0.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 2.0]])
        >>> round(model.inertia_, 3)
        4.0
        >>> model.cluster_centers_[np.argsort(model.cluster_centers_[:, 0])].tolist()
        [[0.0, 1.0], [9.0, 1.0]]
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
        """Cluster the points `[n d]`; points of weight 0 do not count."""
        self._check_parameters()
        points = validate_data(self, _as_array(X), dtype=[np.float64, np.float32], order="C")
        weights = _check_weights(sample_weight, len(points))
        if len(points) < self.n_clusters:
            raise ValueError(f"n_samples={len(points)} should be >= n_clusters={self.n_clusters}.")
        random = check_random_state(self.random_state)
        initial, restarts = self._initialization(points, random)
        found = kmeans(
            jax.random.key(random.randint(2**31 - 1)),
            _padded(points),
            int(self.n_clusters),
            weights=_padded(weights),
            init=initial,
            restarts=restarts,
            max_iterations=int(self.max_iter),
            tol=float(self.tol),
        )
        self.cluster_centers_ = np.asarray(found.centroids).astype(points.dtype)
        self.n_iter_ = int(found.iterations)
        self._n_features_out = self.n_clusters
        self.labels_, self.inertia_ = _nearest(points, self.cluster_centers_, weights)
        _warn_of_few_clusters(len(np.unique(self.labels_)), self.n_clusters)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The nearest of `cluster_centers_` to each point, whatever the types of both."""
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
        points = validate_data(self, _as_array(X), reset=False, dtype=[np.float64, np.float32])
        centres = np.asarray(self.cluster_centers_, np.float64)
        middle = centres.mean(axis=0)
        return euclidean_distances(points - middle, centres - middle).astype(points.dtype, copy=False)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Minus the inertia of these points."""
        return -self._assign(X, sample_weight)[1]

    def _assign(self, X: Any, sample_weight: Any) -> tuple[np.ndarray, float]:  # noqa: N803
        check_is_fitted(self)
        points = validate_data(self, _as_array(X), reset=False, dtype=[np.float64, np.float32], order="C")
        weights = _check_weights(sample_weight, len(points))
        return _nearest(points, np.asarray(self.cluster_centers_, np.float64), weights)

    def _check_parameters(self) -> None:
        """Raises a ValueError that names the first parameter out of its range, in scikit-learn's words."""
        whole, tolerance = "an int in the range [1, inf)", "a float in the range [0, inf)"
        automatic = isinstance(self.n_init, str) and self.n_init == "auto"
        for name, fits, wanted in (
            ("n_clusters", is_whole(self.n_clusters, 1), whole),
            ("n_init", automatic or is_whole(self.n_init, 1), f"'auto' or {whole}"),
            ("max_iter", is_whole(self.max_iter, 1), whole),
            ("tol", is_tolerance(self.tol), tolerance),
        ):
            if not fits:
                raise ValueError(
                    f"The {name!r} parameter of KMeans must be {wanted}. Got {getattr(self, name)!r} instead."
                )

    def _initialization(self, points: np.ndarray, random: np.random.RandomState) -> tuple[Any, int]:
        """A method or initial centroids `[r k d]`, and the number of restarts."""
        if isinstance(self.init, str):
            if self.init not in ("k-means++", "random"):
                raise ValueError(f"init is {self.init!r}, but must be k-means++, random, an array or a function")
            return self.init, (1 if self.init == "k-means++" else 10) if self.n_init == "auto" else int(self.n_init)
        if callable(self.init):
            count = 10 if self.n_init == "auto" else int(self.n_init)
            initial = [self.init(points, self.n_clusters, random_state=random) for _ in range(count)]
        else:
            initial = [self.init]
        stacked = np.stack([check_array(centroids, dtype=points.dtype) for centroids in initial])
        if stacked.shape[1:] != (self.n_clusters, points.shape[1]):
            raise ValueError(f"init gives {stacked.shape[1:]}, but must give {(self.n_clusters, points.shape[1])}")
        return stacked, len(stacked)


def _check_weights(sample_weight: Any, count: int) -> Float[np.ndarray, "n"]:
    """Weights in float32, at least 0 and not all 0; None: all 1; a number: the weight of every point."""
    if sample_weight is None:
        return np.ones(count, np.float32)
    if isinstance(sample_weight, Real):
        sample_weight = np.full(count, sample_weight)
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float32, order="C", input_name="sample_weight")
    if weights.ndim != 1:
        raise ValueError(
            f"Sample weights must be 1D array or scalar, got {weights.ndim}D array. "
            f"Expected either a scalar value or a 1D array of length {count}."
        )
    if weights.shape != (count,):
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected {(count,)}!")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    check_non_negative(weights, "`sample_weight`")
    return weights


def _warn_of_few_clusters(distinct: int, wanted: int) -> None:
    if distinct < wanted:
        warnings.warn(
            f"Number of distinct clusters ({distinct}) found smaller than n_clusters ({wanted}). "
            "Possibly due to duplicate points in X.",
            ConvergenceWarning,
            stacklevel=3,
        )


def _as_array(points: Any) -> Any:
    """Arrays of types that scikit-learn does not know, as float32: bfloat16 of JAX and of PyTorch."""
    if is_tensor(points):
        return tensor_to_numpy("X", points)
    return np.asarray(points, np.float32) if str(getattr(points, "dtype", "")) == "bfloat16" else points


def _nearest(points: np.ndarray, centres: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    labels, inertia = assign_to(_padded(points), centres, _padded(weights))
    return labels[: len(points)], inertia


def _padded(values: np.ndarray) -> np.ndarray:
    """Padded with zeros to a power of two, where values are few."""
    extra = (1 << (len(values) - 1).bit_length()) - len(values) if len(values) <= MAX_PADDED else 0
    return np.pad(values, ((0, extra), *[(0, 0)] * (values.ndim - 1))) if extra else values
