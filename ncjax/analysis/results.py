# SPDX-License-Identifier: Apache-2.0
"""One row of the table: everything that is measured on the features of one network, or on raw pixels."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ncjax.analysis.clp import ClpResult, FeatureArrays, cluster_super_classes, score_clusters
from ncjax.analysis.collapse import class_distances, class_statistics, nc1
from ncjax.analysis.probe import Probe, fit_probe, probe_predict
from ncjax.config import Variant

__all__ = ["EvaluationResult", "FeatureArrays", "evaluate_features"]


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Accuracies are shares in [0, 1]; NC1 is at least 0; distances are mean squared distances on the training set."""

    probe_train_accuracy: float
    probe_test_accuracy: float  # of a linear probe on the true labels: the ceiling of CLP
    probe_gradient_norm: float
    nc1: dict[str, float | None]  # nc1_coarse_train, nc1_ratio_coarse_train, ...; None where all features are the same
    class_distances: Float[np.ndarray, "f f"]
    distance_same_class: float
    distance_merged_classes: float | None  # None where no classes are merged
    distance_other_classes: float | None
    clp: dict[str, ClpResult]

    def to_json(self) -> dict[str, Any]:
        """Plain content: the fields, with those of `nc1` beside them."""
        content = dataclasses.asdict(self)
        return {**content, **content.pop("nc1"), "class_distances": self.class_distances.round(6).tolist()}


def evaluate_features(
    key: Key[Array, ""],
    features: FeatureArrays,
    super_class: tuple[int, ...],
    variants: tuple[Variant, ...],
    *,
    restarts: int = 10,
) -> EvaluationResult:
    """Measure CLP, the true-label probe, and collapse to the coarse and to the fine labels.

    Args:
        key: randomness of k-means.
        features: of both splits.
        super_class: coarse label of each fine class.
        variants: views for CLP.
        restarts: of k-means.
    """
    fine = len(super_class)
    train, test = jnp.asarray(features.train), jnp.asarray(features.test)
    clusters = [cluster_super_classes(key, features, super_class, view, restarts=restarts) for view in variants]
    probe, *clp_probes = (
        fit_probe(train, jnp.asarray(labels), fine)
        for labels in (features.train_fine, *(found.train for found in clusters))
    )
    distances = np.asarray(class_distances(class_statistics(train, jnp.asarray(features.train_fine), fine)))
    coarse = np.asarray(super_class, np.int32)
    merged = coarse[:, None] == coarse[None, :]
    same = np.eye(fine, dtype=bool)
    return EvaluationResult(
        probe_train_accuracy=_accuracy(probe, train, features.train_fine),
        probe_test_accuracy=_accuracy(probe, test, features.test_fine),
        probe_gradient_norm=float(probe.gradient_norm),
        nc1=_nc1_table(features, coarse),
        class_distances=distances,
        distance_same_class=float(distances[same].mean()),
        distance_merged_classes=_mean(distances[merged & ~same]),
        distance_other_classes=_mean(distances[~merged]),
        clp={
            variant: score_clusters(features, found, np.asarray(probe_predict(clp_probe, test)), super_class)
            for variant, found, clp_probe in zip(variants, clusters, clp_probes, strict=True)
        },
    )


def _accuracy(probe: Probe, points: Array, labels: np.ndarray) -> float:
    return float((np.asarray(probe_predict(probe, points)) == labels).mean())


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _nc1_table(features: FeatureArrays, coarse: np.ndarray) -> dict[str, float | None]:
    table: dict[str, float | None] = {}
    splits = {"train": (features.train, features.train_fine), "test": (features.test, features.test_fine)}
    for split, (points, fine) in splits.items():
        for level, labels in (("coarse", coarse[fine]), ("fine", fine)):
            classes = int(coarse.max()) + 1 if level == "coarse" else len(coarse)
            collapse = jax.device_get(nc1(class_statistics(jnp.asarray(points), jnp.asarray(labels), classes)))
            spread = np.ptp(points, axis=0).any()
            table[f"nc1_{level}_{split}"] = float(collapse.nc1) if spread else None
            table[f"nc1_ratio_{level}_{split}"] = float(collapse.nc1_ratio) if spread else None
    return table
