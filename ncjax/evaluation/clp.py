# SPDX-License-Identifier: Apache-2.0
"""Cluster-and-linear-probe (CLP): can the fine classes be read off a network that never saw them?

k-means splits each super-class into as many clusters as it merges classes; a (super-class, cluster) pair is a
reconstructed label. A linear classifier is trained on the frozen features with the reconstructed labels and scored on
the test set against the true classes (Yang, Steinhardt and Hu, ICML 2023).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, Key

from ncjax.cluster import KMeansResult, kmeans, match_clusters, sharded_kmeans
from ncjax.data.label_maps import LabelMap
from ncjax.data.labels import number_classes
from ncjax.distributed.mesh import ROWS
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.errors import UserError
from ncjax.evaluation.label_levels import super_classes
from ncjax.evaluation.linear_probe import fit_linear_probe
from ncjax.evaluation.views import Embedded, Features, find_view
from ncjax.features.arrays import as_labels, as_members
from ncjax.features.frames import framed
from ncjax.storage.arrays import FramedRows

TSNE_NEIGHBOURS = 15  # that vote where a view embeds only some of the examples


@dataclass(frozen=True, kw_only=True)
class ClpResult:
    """Shares in [0, 1]; cluster-to-class matching is that of the training set except for the oracle."""

    test_accuracy: float  # of the probe on reconstructed labels, against true test labels
    test_accuracy_oracle: float  # the same with the matching chosen on the test set
    cluster_accuracy_train: float
    cluster_accuracy_test: float | None  # nearest centroid in the true super-class; None where the view cannot embed
    ari: float  # adjusted Rand index of the training clusters, up to 1
    nmi: float
    inertia: float  # of k-means in its view, summed over super-classes; raw: in squared units of the features


@dataclass(frozen=True, kw_only=True)
class ViewClusters:
    """Reconstructed labels of one network in one view: clusters inside super-classes, numbered over all of them."""

    train: Int32[np.ndarray, "n"]
    test: Int32[np.ndarray, "m"] | None  # None where the view cannot embed new points
    super_class: tuple[int, ...]  # of each cluster
    inertia: float
    embedding: Float32[np.ndarray, "n p"] | None = None  # of views that are planes; NaN for examples that only vote


def cluster_and_linear_probe(
    train: Any,
    train_labels: Any,
    test: Any,
    test_labels: Any,
    label_map: str | Sequence[int] | LabelMap,
    *,
    view: str = "raw",
    restarts: int = 10,
    seed: int = 0,
) -> ClpResult:
    """Clusters one view of the features inside each super-class, and scores a linear probe on the clusters.

    Args:
        train: features `[n d]`.
        train_labels: fine labels `[n]`, from 0; used for the super-classes and for the scores.
        test: features `[m d]`.
        test_labels: fine labels `[m]`.
        label_map: which classes are merged: `mod:5`, the coarse label of each fine class, or a `LabelMap`.
        view: name in `VIEWS`: raw, normalised, residual_pca or tsne.
        restarts: of k-means.
        seed: of k-means.

    Raises:
        UserError: arrays do not fit, the view is unknown, or a super-class has fewer examples than classes.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(40) % 4
        >>> points = np.eye(4, dtype=np.float32)[labels] + 0.01 * np.arange(40, dtype=np.float32)[:, None] / 40
        >>> found = cluster_and_linear_probe(points, labels, points, labels, [0, 1, 0, 1], restarts=2)
        >>> found.test_accuracy, found.ari
        (1.0, 1.0)
    """
    arrays = {name: as_members(name, x)[0] for name, x in (("train", train), ("test", test))}
    frame = framed(arrays["train"]).frame
    rows = {name: FramedRows(one, frame)[:] for name, one in arrays.items()}
    whole = {name: as_labels(name, y, len(rows[name])) for name, y in (("train", train_labels), ("test", test_labels))}
    fine, names = number_classes(whole)
    owner = super_classes(label_map, fine, names)
    clusters = cluster_super_classes(jax.random.key(seed), rows, fine, owner, view, restarts=restarts)
    probe = fit_linear_probe(jnp.asarray(rows["train"]), jnp.asarray(clusters.train), len(owner))
    predicted = np.asarray(probe.predict(jnp.asarray(rows["test"])))
    found = score_clusters(clusters, predicted, fine["train"], fine["test"], owner)
    return dataclasses.replace(found, inertia=found.inertia * frame.scale ** find_view(view).power)


def cluster_super_classes(
    key: Key[Array, ""],
    rows: Mapping[str, Float32[np.ndarray, "_ d"]],
    fine: Mapping[str, Int32[np.ndarray, "_"]],
    super_class: tuple[int, ...],
    view: str,
    *,
    restarts: int = 10,
    mesh: Mesh | None = None,
) -> ViewClusters:
    """k-means inside each super-class, with as many clusters as it merges classes.

    Args:
        key: randomness of k-means.
        rows: features of `train` and `test`; of the true labels only the super-classes are used.
        fine: labels of both.
        super_class: coarse label of each fine class.
        view: name in `VIEWS`.
        restarts: of k-means.
        mesh: over which examples are sharded; None: one device.

    Raises:
        UserError: the view is unknown, or a super-class has fewer training examples than classes.
    """
    chosen = find_view(view)
    coarse = np.asarray(super_class, np.int32)
    owner = {name: coarse[labels] for name, labels in fine.items()}
    check_counts(coarse, owner["train"])
    embedded = chosen.embed(Features(rows["train"], owner["train"], rows["test"], owner["test"], mesh))
    found = cluster_embedded(key, embedded, owner, coarse, restarts, mesh if embedded.rows is None else None)
    if embedded.rows is not None:
        voted = _vote(rows["train"], owner["train"], embedded.rows, found.train)
        found = dataclasses.replace(found, train=voted)
    plane = scattered(embedded, len(rows["train"])) if chosen.is_plane else None
    return dataclasses.replace(found, embedding=plane)


def check_counts(coarse: np.ndarray, train_super: np.ndarray) -> None:
    """Refuses super-classes with fewer training examples than classes.

    Raises:
        UserError: naming the first of them.
    """
    sizes, counts = np.bincount(coarse), np.bincount(train_super, minlength=coarse.max() + 1)
    if (counts < sizes).any():
        at = int((counts < sizes).argmax())
        raise UserError(f"super-class {at} has {counts[at]} training examples for {sizes[at]} classes; train on more")


def scattered(embedded: Embedded, count: int) -> Float32[np.ndarray, "n p"]:
    """What is embedded, in the places of the training examples; NaN for the others."""
    if embedded.rows is None:
        return embedded.train
    whole = np.full((count, embedded.train.shape[1]), np.nan, np.float32)
    whole[embedded.rows] = embedded.train
    return whole


def _vote(train: np.ndarray, train_super: np.ndarray, kept: np.ndarray, found: np.ndarray) -> Int32[np.ndarray, "n"]:
    """Every example joins the cluster of most of its nearest among those that are embedded, by their features."""
    from sklearn.neighbors import KNeighborsClassifier

    labels = np.empty(len(train), np.int32)
    for group in np.unique(train_super):
        rows = np.flatnonzero(train_super == group)
        inside = np.isin(kept, rows)
        voters = KNeighborsClassifier(min(TSNE_NEIGHBOURS, int(inside.sum())))
        labels[rows] = voters.fit(train[kept[inside]], found[inside]).predict(train[rows])
    labels[kept] = found
    return labels


def cluster_embedded(
    key: Array,
    embedded: Embedded,
    owner: Mapping[str, np.ndarray],
    coarse: np.ndarray,
    restarts: int,
    mesh: Mesh | None,
) -> ViewClusters:
    """k-means in every super-class, those with the same number of classes at once (shorter ones padded, weight 0)."""
    train, test = embedded.train, embedded.test
    train_super = owner["train"] if embedded.rows is None else owner["train"][embedded.rows]
    sizes, counts = np.bincount(coarse), np.bincount(train_super, minlength=coarse.max() + 1)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    train_clusters = np.empty(len(train), np.int32)
    test_clusters = None if test is None else np.empty(len(test), np.int32)
    inertia = 0.0
    for k in np.unique(sizes[sizes > 0]):
        groups = np.flatnonzero(sizes == k)
        rows = [np.flatnonzero(train_super == group) for group in groups]
        found = kmeans_of_groups(key, train, rows, int(counts.max()), int(k), restarts, mesh)
        inertia += float(found.inertia.sum())
        for i, (group, members) in enumerate(zip(groups, rows, strict=True)):
            train_clusters[members] = first[group] + found.labels[i][: len(members)]
            if test is not None and test_clusters is not None:
                tested = np.flatnonzero(owner["test"] == group)
                distances = ((test[tested][:, None, :] - found.centroids[i][None]) ** 2).sum(axis=-1)
                test_clusters[tested] = first[group] + distances.argmin(axis=1)
    numbered = tuple(int(group) for group in np.repeat(np.arange(sizes.size), sizes))
    return ViewClusters(train=train_clusters, test=test_clusters, super_class=numbered, inertia=inertia)


def kmeans_of_groups(
    key: Array, train: np.ndarray, rows: list[np.ndarray], longest: int, k: int, restarts: int, mesh: Mesh | None
) -> KMeansResult:
    """One problem for each group of rows, all at once; the results on the host."""
    points = np.zeros((len(rows), longest, train.shape[1]), np.float32)
    weights = np.zeros(points.shape[:2], np.float32)
    for i, members in enumerate(rows):
        points[i, : len(members)], weights[i, : len(members)] = train[members], 1
    keys = jax.random.split(jax.random.fold_in(key, k), len(rows))
    if mesh is None:
        return jax.device_get(kmeans(keys, jnp.asarray(points), k, weights=jnp.asarray(weights), restarts=restarts))
    sharded, present = (shard_rows(part, mesh, axis=1) for part in (points, weights))
    return to_host(sharded_kmeans(keys, sharded, k, mesh=mesh, axis_name=ROWS, weights=present, restarts=restarts))


class TrainingScores(NamedTuple):
    """How the clusters of the training split agree with the fine classes."""

    accuracy: float
    ari: float
    nmi: float


def match_to_classes(
    clusters: ViewClusters, train_fine: Int32[np.ndarray, "n"], super_class: tuple[int, ...]
) -> Int32[np.ndarray, "k"]:
    """The fine class that each cluster stands for: one of its own super-class, by most training examples."""
    return match_clusters(clusters.train, train_fine, _allowed(clusters, super_class))


def score_training_clusters(
    clusters: ViewClusters, train_fine: Int32[np.ndarray, "n"], super_class: tuple[int, ...]
) -> TrainingScores:
    """Accuracy under the matching, adjusted Rand index and normalized mutual information."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return TrainingScores(
        accuracy=_share(match_to_classes(clusters, train_fine, super_class)[clusters.train], train_fine),
        ari=float(adjusted_rand_score(train_fine, clusters.train)),
        nmi=float(normalized_mutual_info_score(train_fine, clusters.train)),
    )


def score_clusters(
    clusters: ViewClusters,
    predicted: Int32[np.ndarray, "m"],
    train_fine: Int32[np.ndarray, "n"],
    test_fine: Int32[np.ndarray, "m"],
    super_class: tuple[int, ...],
) -> ClpResult:
    """Compares reconstructed labels with the fine classes.

    Args:
        clusters: the reconstructed labels.
        predicted: the reconstructed label that a probe trained on them gives each test example.
        train_fine: true labels.
        test_fine: true labels.
        super_class: coarse label of each fine class; a cluster stands for a class of its own super-class.
    """
    matching = match_to_classes(clusters, train_fine, super_class)
    oracle = match_clusters(predicted, test_fine, _allowed(clusters, super_class))
    training = score_training_clusters(clusters, train_fine, super_class)
    return ClpResult(
        test_accuracy=_share(matching[predicted], test_fine),
        test_accuracy_oracle=_share(oracle[predicted], test_fine),
        cluster_accuracy_train=training.accuracy,
        cluster_accuracy_test=None if clusters.test is None else _share(matching[clusters.test], test_fine),
        ari=training.ari,
        nmi=training.nmi,
        inertia=clusters.inertia,
    )


def _allowed(clusters: ViewClusters, super_class: tuple[int, ...]) -> np.ndarray:
    return np.asarray(clusters.super_class)[:, None] == np.asarray(super_class)[None, :]


def _share(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found == truth).mean())
