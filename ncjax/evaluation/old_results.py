# SPDX-License-Identifier: Apache-2.0
"""One row of the table: everything that is measured on the features of one network, or on raw pixels."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from ncjax.evaluation.clp import ClpResult, FeatureArrays, cluster_super_classes, score_clusters
from ncjax.collapse.measure import Classifier, Labelled
from ncjax.evaluation.linear_probe import Probe, fit_probe, probe_predict
from ncjax.evaluation.old_table import CollapseTable, collapse_table
from ncjax.config import Variant
from ncjax.distributed.sharding import shard_rows
from ncjax.distributed.processes import to_host

DISTANCES = ("distance_same_class", "distance_merged_classes", "distance_other_classes")
__all__ = ["EvaluationResult", "FeatureArrays", "evaluate_features"]


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Accuracies are shares in [0, 1]; docs/metrics.md describes the table of collapse."""

    probe_train_accuracy: float
    probe_test_accuracy: float  # of a linear probe on the true labels: the ceiling of CLP
    probe_gradient_norm: float
    collapse: CollapseTable
    clp: dict[str, ClpResult]

    def to_json(self) -> dict[str, Any]:
        """Plain content; NC1 and the distances of the training split stand beside the full table too."""
        values, distances = self.collapse.values, self.collapse.class_distances
        levels = [(level, split) for split in ("train", "test") for level in ("coarse", "fine")]
        return {
            "probe_train_accuracy": self.probe_train_accuracy,
            "probe_test_accuracy": self.probe_test_accuracy,
            "probe_gradient_norm": self.probe_gradient_norm,
            **{
                f"{name}_{level}_{split}": values.get(split, {}).get(level, {}).get(name)
                for level, split in levels
                for name in ("nc1", "nc1_ratio")
            },
            "class_distances": distances.astype(float).round(6).tolist(),
            **{name: values.get("train", {}).get("within", {}).get(name) for name in DISTANCES},
            "clp": {variant: dataclasses.asdict(scores) for variant, scores in self.clp.items()},
            "collapse": values,
            "left_out": list(self.collapse.left_out),
        }


def evaluate_features(
    key: Key[Array, ""],
    features: FeatureArrays,
    super_class: tuple[int, ...],
    variants: tuple[Variant, ...],
    classifier: Classifier | None = None,
    *,
    restarts: int = 10,
    mesh: Mesh | None = None,
) -> EvaluationResult:
    """Measure CLP, the true-label probe, and collapse to the coarse and to the fine labels.

    Args:
        key: randomness of k-means.
        features: of both splits.
        super_class: coarse label of each fine class.
        variants: views for CLP.
        classifier: that the features were made for, for NC3 and NC4.
        restarts: of k-means.
        mesh: over which examples are spread (`ncjax.distributed.sharding`); none: one device.
    """
    train, test = shard_rows(features.train, mesh), shard_rows(features.test, mesh)
    present = None if mesh is None else shard_rows(np.ones(len(features.train), np.float32), mesh)
    clusters = [
        cluster_super_classes(key, features, super_class, view, restarts=restarts, mesh=mesh) for view in variants
    ]
    labels = np.stack([features.train_fine, *(found.train for found in clusters)])
    probes = fit_probe(train, shard_rows(labels, mesh, axis=1), len(super_class), weights=present, mesh=mesh)
    seen, (held, *clp) = _predict(probes, train, len(features.train))[0], _predict(probes, test, len(features.test))
    collapse = collapse_table(
        Labelled(features.train, features.train_fine),
        Labelled(features.test, features.test_fine),
        super_class,
        classifier,
        mesh,
    )
    return EvaluationResult(
        probe_train_accuracy=float((seen == features.train_fine).mean()),
        probe_test_accuracy=float((held == features.test_fine).mean()),
        probe_gradient_norm=float(to_host(probes.gradient_norm)[0]),
        collapse=collapse,
        clp={
            variant: score_clusters(features, found, predicted, super_class)
            for variant, found, predicted in zip(variants, clusters, clp, strict=True)
        },
    )


def _predict(probes: Probe, points: Array, count: int) -> np.ndarray:
    """By each probe, of the first examples; those behind them fill up the devices."""
    return to_host(probe_predict(probes, points))[:, :count]
