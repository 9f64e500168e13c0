# SPDX-License-Identifier: Apache-2.0
"""Cluster-and-linear-probe (CLP): can the fine classes be read off a network that never saw them?

k-means splits each super-class into as many clusters as it merges classes; a (super-class, cluster) pair is a
reconstructed label. A linear classifier is trained on the frozen features with the reconstructed labels and scored on
the test set against the true classes (Yang, Steinhardt and Hu, ICML 2023).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from ncjax.cluster import match_clusters
from ncjax.data.label_maps import LabelMap
from ncjax.data.labels import number_classes
from ncjax.evaluation.clusters import Examples, ViewClusters, cluster_networks
from ncjax.evaluation.label_levels import super_classes
from ncjax.evaluation.linear_probe import fit_linear_probe
from ncjax.evaluation.views import find_view
from ncjax.features.arrays import as_labels, as_members
from ncjax.features.frames import framed
from ncjax.storage.arrays import FramedRows


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
    (found,) = cluster_networks([Examples(rows, fine, owner)], (view,), restarts=restarts, seed=seed)
    clusters = found[view]
    probe = fit_linear_probe(jnp.asarray(rows["train"]), jnp.asarray(clusters.train), len(owner))
    predicted = np.asarray(probe.predict(jnp.asarray(rows["test"])))
    scores = score_clusters(clusters, predicted, fine["train"], fine["test"], owner)
    return dataclasses.replace(scores, inertia=scores.inertia * frame.scale ** find_view(view).power)


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
