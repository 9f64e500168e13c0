# SPDX-License-Identifier: Apache-2.0
"""Cluster-and-linear-probe (CLP): can the fine classes be read off a network that never saw them?

k-means splits each super-class into as many clusters as it merges classes; a (super-class, cluster) pair is a
reconstructed label. A linear classifier is trained on the frozen features with the reconstructed labels and scored on
the test set against the true classes. Which view of the features the original paper clustered is not confirmed, so
several are measured side by side.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, Key

from ncjax.evaluation.linear_probe import fit_probe, probe_predict
from ncjax.cluster import KMeansResult, kmeans, match_clusters, sharded_kmeans
from ncjax.config import Variant
from ncjax.distributed.sharding import ROWS, shard_rows
from ncjax.errors import UserError
from ncjax.distributed.processes import to_host

PCA_DIMENSIONS = 8
TSNE_POINTS = 2000  # per super-class; the others join the cluster of most of their 15 nearest among these
TSNE_NEIGHBOURS = 15


@dataclass(frozen=True, kw_only=True)
class FeatureArrays:
    """Features of both splits with their true (fine) labels."""

    train: Float32[np.ndarray, "n d"]
    train_fine: Int32[np.ndarray, "n"]
    test: Float32[np.ndarray, "m d"]
    test_fine: Int32[np.ndarray, "m"]


@dataclass(frozen=True, kw_only=True)
class ClpResult:
    """Shares in [0, 1]; cluster-to-class matching is that of the training set except for the oracle."""

    test_accuracy: float  # of the probe on reconstructed labels, against true test labels
    test_accuracy_oracle: float  # the same with the matching chosen on the test set
    cluster_accuracy_train: float
    cluster_accuracy_test: float | None  # nearest centroid in the true super-class; None where the view cannot embed
    ari: float  # adjusted Rand index of the training clusters, up to 1
    nmi: float
    inertia: float  # of k-means in its view, summed over super-classes


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Reconstructed labels: clusters inside super-classes, numbered over all of them."""

    train: Int32[np.ndarray, "n"]
    test: Int32[np.ndarray, "m"] | None  # None where the view cannot embed new points
    super_class: tuple[int, ...]  # of each cluster
    inertia: float


def cluster_and_linear_probe(
    key: Key[Array, ""],
    features: FeatureArrays,
    super_class: tuple[int, ...],
    variant: Variant,
    *,
    restarts: int = 10,
) -> ClpResult:
    """CLP on one view of the features; see `cluster_super_classes` for the arguments and errors."""
    clusters = cluster_super_classes(key, features, super_class, variant, restarts=restarts)
    probe = fit_probe(jnp.asarray(features.train), jnp.asarray(clusters.train), len(super_class))
    return score_clusters(features, clusters, np.asarray(probe_predict(probe, jnp.asarray(features.test))), super_class)


def cluster_super_classes(
    key: Key[Array, ""],
    features: FeatureArrays,
    super_class: tuple[int, ...],
    variant: Variant,
    *,
    restarts: int = 10,
    mesh: Mesh | None = None,
) -> Clusters:
    """k-means inside each super-class, with as many clusters as it merges classes.

    Args:
        key: randomness of k-means.
        features: frozen features; of the true labels only the super-classes are used.
        super_class: coarse label of each fine class.
        variant: raw: as they are; normalised: minus the super-class mean, then of length 1; residual_pca: minus the
            super-class mean, on the first 8 principal axes of the super-class, whitened; tsne: embedded in two
            dimensions.
        restarts: of k-means.
        mesh: over which examples are spread (`ncjax.distributed.sharding`); none: one device. t-SNE has no use for it.

    Raises:
        UserError: a super-class has fewer training examples than classes.
    """
    coarse = np.asarray(super_class, np.int32)
    train_super, test_super = coarse[features.train_fine], coarse[features.test_fine]
    if variant == "tsne":
        return _tsne_clusters(key, features.train, train_super, coarse, restarts)
    train, test = _view(features, train_super, test_super, variant, mesh)
    return _cluster(key, train, train_super, test, test_super, coarse, restarts, mesh)


def _view(
    features: FeatureArrays, train_super: np.ndarray, test_super: np.ndarray, variant: Variant, mesh: Mesh | None
) -> tuple[np.ndarray, np.ndarray]:
    if variant == "raw":
        return features.train, features.test
    counts = np.bincount(train_super)
    means = np.zeros((counts.size, features.train.shape[1]), np.float64)
    np.add.at(means, train_super, features.train)
    means = (means / counts[:, None]).astype(np.float32)
    train, test = features.train - means[train_super], features.test - means[test_super]
    if variant == "normalised":
        return tuple(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (train, test))
    return _residual_pca(train, train_super, test, test_super, mesh)


def _residual_pca(
    train: np.ndarray, train_super: np.ndarray, test: np.ndarray, test_super: np.ndarray, mesh: Mesh | None
) -> tuple[np.ndarray, np.ndarray]:
    dimensions = min(PCA_DIMENSIONS, train.shape[1])
    views = np.zeros((len(train), dimensions), np.float32), np.zeros((len(test), dimensions), np.float32)
    for group in np.unique(train_super):
        own = train[train_super == group]
        inside = shard_rows(own, mesh)
        products = to_host(jnp.matmul(inside.T, inside, precision=jax.lax.Precision.HIGHEST))
        values, axes = np.linalg.eigh(products.astype(np.float64) / len(own))
        least = max(1e-12 * values[-1], np.finfo(np.float32).tiny)
        top = axes[:, -dimensions:] / np.sqrt(np.maximum(values[-dimensions:], least))
        for view, points, owner in ((views[0], train, train_super), (views[1], test, test_super)):
            view[owner == group] = points[owner == group] @ top
    return views


def _cluster(
    key: Array,
    train: np.ndarray,
    train_super: np.ndarray,
    test: np.ndarray,
    test_super: np.ndarray,
    coarse: np.ndarray,
    restarts: int,
    mesh: Mesh | None = None,
) -> Clusters:
    """k-means in every super-class, those with the same number of classes at once (shorter ones padded, weight 0)."""
    sizes, counts = np.bincount(coarse), np.bincount(train_super, minlength=coarse.max() + 1)
    if (counts < sizes).any():
        at = int((counts < sizes).argmax())
        raise UserError(f"super-class {at} has {counts[at]} training examples for {sizes[at]} classes; train on more")
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    train_clusters, test_clusters = np.empty(len(train), np.int32), np.empty(len(test), np.int32)
    inertia = 0.0
    for k in np.unique(sizes[sizes > 0]):
        groups = np.flatnonzero(sizes == k)
        rows = [np.flatnonzero(train_super == group) for group in groups]
        points = np.zeros((len(groups), counts.max(), train.shape[1]), np.float32)
        weights = np.zeros(points.shape[:2], np.float32)
        for i, members in enumerate(rows):
            points[i, : len(members)], weights[i, : len(members)] = train[members], 1
        keys = jax.random.split(jax.random.fold_in(key, int(k)), len(groups))
        found = _kmeans(keys, points, int(k), weights, restarts, mesh)
        inertia += float(found.inertia.sum())
        for i, (group, members) in enumerate(zip(groups, rows, strict=True)):
            train_clusters[members] = first[group] + found.labels[i][: len(members)]
            tested = np.flatnonzero(test_super == group)
            distances = ((test[tested][:, None, :] - found.centroids[i][None]) ** 2).sum(axis=-1)
            test_clusters[tested] = first[group] + distances.argmin(axis=1)
    owner = tuple(int(group) for group in np.repeat(np.arange(sizes.size), sizes))
    return Clusters(train=train_clusters, test=test_clusters, super_class=owner, inertia=inertia)


def _kmeans(
    keys: Array, points: np.ndarray, k: int, weights: np.ndarray, restarts: int, mesh: Mesh | None
) -> KMeansResult:
    """Several problems at once; the results on the host."""
    if mesh is None:
        return jax.device_get(kmeans(keys, jnp.asarray(points), k, weights=jnp.asarray(weights), restarts=restarts))
    spread, present = (shard_rows(part, mesh, axis=1) for part in (points, weights))
    return to_host(sharded_kmeans(keys, spread, k, mesh=mesh, axis_name=ROWS, weights=present, restarts=restarts))


def score_clusters(
    features: FeatureArrays, clusters: Clusters, predicted: Int32[np.ndarray, "m"], super_class: tuple[int, ...]
) -> ClpResult:
    """Compare reconstructed labels with the fine classes.

    Args:
        features: for their true labels.
        clusters: the reconstructed labels.
        predicted: the reconstructed label that a probe trained on them gives each test example.
        super_class: coarse label of each fine class; a cluster stands for a class of its own super-class.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    allowed = np.asarray(clusters.super_class)[:, None] == np.asarray(super_class)[None, :]
    matching = match_clusters(clusters.train, features.train_fine, allowed)
    oracle = match_clusters(predicted, features.test_fine, allowed)
    return ClpResult(
        test_accuracy=_share(matching[predicted], features.test_fine),
        test_accuracy_oracle=_share(oracle[predicted], features.test_fine),
        cluster_accuracy_train=_share(matching[clusters.train], features.train_fine),
        cluster_accuracy_test=None if clusters.test is None else _share(matching[clusters.test], features.test_fine),
        ari=float(adjusted_rand_score(features.train_fine, clusters.train)),
        nmi=float(normalized_mutual_info_score(features.train_fine, clusters.train)),
        inertia=clusters.inertia,
    )


def _share(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found == truth).mean())


def _tsne_clusters(
    key: Array, train: np.ndarray, train_super: np.ndarray, coarse: np.ndarray, restarts: int
) -> Clusters:
    """k-means after t-SNE of up to `TSNE_POINTS` examples a super-class; a test point cannot be embedded."""
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(train_super == group) for group in np.unique(coarse)]
    chosen = [np.sort(rng.permutation(rows)[:TSNE_POINTS]) for rows in groups]
    kept = np.concatenate(chosen)
    embedded = np.concatenate([_tsne(train[rows]) for rows in chosen]).astype(np.float32)
    empty = embedded[:0], train_super[:0]
    found = _cluster(key, embedded, train_super[kept], *empty, coarse, restarts)
    labels = np.empty(len(train), np.int32)
    for rows in groups:
        inside = np.isin(kept, rows)
        voters = KNeighborsClassifier(min(TSNE_NEIGHBOURS, int(inside.sum())))
        labels[rows] = voters.fit(train[kept[inside]], found.train[inside]).predict(train[rows])
    labels[kept] = found.train
    return Clusters(train=labels, test=None, super_class=found.super_class, inertia=found.inertia)


def _tsne(points: np.ndarray) -> Any:
    perplexity = min(30.0, max((len(points) - 1) / 3, 1.0))
    try:
        import openTSNE
    except ImportError:
        from sklearn.manifold import TSNE

        return TSNE(perplexity=perplexity, random_state=0).fit_transform(points)
    return np.asarray(openTSNE.TSNE(perplexity=perplexity, random_state=0).fit(points))
