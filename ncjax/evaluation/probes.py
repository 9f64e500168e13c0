# SPDX-License-Identifier: Apache-2.0
"""Probes, clusters and CLP of one network, as measurements."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, Int32

from ncjax.collapse.reading import Labelled
from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.errors import UserError
from ncjax.evaluation.clp import (
    ViewClusters,
    cluster_super_classes,
    match_to_classes,
    score_clusters,
    score_training_clusters,
)
from ncjax.evaluation.label_levels import merges
from ncjax.evaluation.linear_probe import LinearProbe, fit_linear_probe
from ncjax.evaluation.networks import Network
from ncjax.evaluation.simple_probes import few_shot, nearest_neighbours, ridge_probe
from ncjax.evaluation.views import find_view
from ncjax.results import Clusters, Measurement, MetricInfo, Scope
from ncjax.storage.arrays import frame_of

NEIGHBOURS, SHOTS = 20, 5


def _share(label: str, scope: Scope) -> MetricInfo:
    return MetricInfo(label=label, scope=scope, low=0.0, high=1.0, better="higher")


INFO: dict[str, MetricInfo] = {
    "accuracy": _share("accuracy on the labels of training", "accuracy"),
    "probe": _share("logistic probe", "probe"),
    "ridge_probe": _share("ridge probe", "probe"),
    "knn_probe": _share(f"{NEIGHBOURS} nearest neighbours", "probe"),
    "few_shot": _share(f"{SHOTS}-shot nearest mean", "probe"),
    "probe_gradient_norm": MetricInfo(label="gradient norm of the probe", scope="probe", low=0.0, better="lower"),
    "probe_converged": _share("logistic probe has converged", "probe"),
    "clp": _share("CLP", "clp"),
    "clp_oracle": _share("CLP, matched on the test set", "clp"),
    "cluster_accuracy": _share("accuracy of the clusters", "clp"),
    "cluster_ari": MetricInfo(label="adjusted Rand index", scope="clp", low=-0.5, high=1.0, better="higher"),
    "cluster_nmi": _share("normalized mutual information", "clp"),
    "inertia": MetricInfo(label="inertia of k-means in its view", scope="clp", low=0.0),
}


class Arrays(NamedTuple):
    """The finite rows of both splits in memory; of a missing test split there are none."""

    rows: dict[str, Float32[np.ndarray, "_ d"]]
    fine: dict[str, Int32[np.ndarray, "_"]]
    kept: dict[str, Int32[np.ndarray, "_"]]  # their row numbers in the split


class Probed(NamedTuple):
    """What was found of one network; clusters have -1 for rows with NaN."""

    measurements: tuple[Measurement, ...]
    clusters: Mapping[str, Clusters]
    left_out: tuple[str, ...]


def measure_probes(network: Network, views: Sequence[str], restarts: int, seed: int) -> Probed:
    """Accuracies of probes on the fine labels, clusters in each view, and CLP.

    Args:
        network: where it has no test split, probes and CLP are left out, and clusters are of the training split.
        views: names in `VIEWS`.
        restarts: of k-means.
        seed: of k-means and of the draws of the few-shot probe.
    """
    arrays, owner = _arrays(network), network.super_class
    clusters, left_out = _clusters(network, arrays, views, restarts, seed)
    measurements: list[Measurement] = []
    if network.test is None:
        left_out = ("probes and clp: there is no test split", *left_out)
        for view, found in clusters.items():
            measurements += cluster_measurements(found, view, arrays, network)
    else:
        linear, predicted = _linear_probes(network, arrays, clusters)
        measurements += [*linear, *_simple_probes(arrays, len(owner), seed)]
        if len(arrays.fine["train"]) < NEIGHBOURS:
            left_out = (*left_out, f"knn_probe: there are {len(arrays.fine['train'])} neighbours, not {NEIGHBOURS}")
        for (view, found), by in zip(clusters.items(), predicted, strict=True):
            measurements += clp_measurements(found, view, by, arrays, network)
    kept = {view: whole_clusters(found, arrays, network) for view, found in clusters.items()}
    return Probed(tuple(measurements), kept, left_out)


def _arrays(network: Network) -> Arrays:
    splits = {"train": network.train, "test": network.test or _none_like(network.train)}
    kept = {name: np.flatnonzero(split.counts > 0).astype(np.int32) for name, split in splits.items()}
    rows = {name: _in_memory(split, kept[name]) for name, split in splits.items()}
    return Arrays(rows, {name: split.fine[kept[name]] for name, split in splits.items()}, kept)


def _in_memory(split: Labelled, kept: np.ndarray) -> Float32[np.ndarray, "_ d"]:
    whole = np.asarray(split.rows[:], np.float32)
    return whole if len(kept) == len(whole) else whole[kept]


def _none_like(split: Labelled) -> Labelled:
    return Labelled(np.zeros((0, split.rows.shape[1]), np.float32), np.zeros(0, np.int32))


def _clusters(
    network: Network, arrays: Arrays, views: Sequence[str], restarts: int, seed: int
) -> tuple[dict[str, ViewClusters], tuple[str, ...]]:
    """Clusters of each view, or none and a line that says why."""
    if not views:
        return {}, ()
    if not merges(network.super_class):
        return {}, ("clp: no label map that merges classes",)
    try:
        key = jax.random.key(seed)
        keywords = {"restarts": restarts, "mesh": network.mesh}
        return {
            view: cluster_super_classes(key, arrays.rows, arrays.fine, network.super_class, view, **keywords)  # type: ignore[arg-type]
            for view in views
        }, ()
    except UserError as error:
        return {}, (f"clp: {error}",)


def _linear_probes(
    network: Network, arrays: Arrays, clusters: Mapping[str, ViewClusters]
) -> tuple[list[Measurement], list[np.ndarray]]:
    """One fit for the true labels and the clusters of each view; and which clusters it predicts for the test split."""
    mesh, counts = network.mesh, {name: len(labels) for name, labels in arrays.fine.items()}
    train, test = (shard_rows(arrays.rows[name], mesh) for name in ("train", "test"))
    present = None if mesh is None else shard_rows(np.ones(counts["train"], np.float32), mesh)
    labels = np.stack([arrays.fine["train"], *(found.train for found in clusters.values())])
    sharded = shard_rows(labels, mesh, axis=1)
    probes = fit_linear_probe(train, sharded, len(network.super_class), weights=present, mesh=mesh)
    fitted, (held, *predicted) = _predict(probes, train, counts["train"])[0], _predict(probes, test, counts["test"])
    return [
        of_fine("probe", "train", float((fitted == arrays.fine["train"]).mean())),
        of_fine("probe", "test", float((held == arrays.fine["test"]).mean())),
        of_fine("probe_gradient_norm", "train", float(to_host(probes.gradient_norm)[0])),
        of_fine("probe_converged", "train", float(to_host(probes.converged)[0])),
    ], predicted


def _predict(probes: LinearProbe, points: Array, count: int) -> np.ndarray:
    """By each probe, of the first examples; those behind them are padding."""
    return to_host(probes.predict(points))[:, :count]


def _simple_probes(arrays: Arrays, classes: int, seed: int) -> list[Measurement]:
    """Probes on fine labels that need no iterations."""
    splits = [(arrays.rows[name], arrays.fine[name]) for name in ("train", "test")]
    ridge, nearest, episodes = jax.device_get(_simple_accuracies(jax.random.key(seed), *splits, classes))
    return [
        of_fine("ridge_probe", "test", float(ridge)),
        of_fine("knn_probe", "test", float(nearest)),
        of_fine("few_shot", "test", float(episodes.mean()), std=float(episodes.std())),
    ]


@partial(jax.jit, static_argnames="classes")
def _simple_accuracies(
    key: Array, train: tuple[Array, Array], test: tuple[Array, Array], classes: int
) -> tuple[Array, Array, Array]:
    """Of the ridge probe, of nearest neighbours, and of each episode of the few-shot probe; one program."""
    (x, y), (z, w) = train, test
    nearest = nearest_neighbours(x, y, z, classes, min(NEIGHBOURS, len(y)))
    return (
        (ridge_probe(x, y, classes).predict(z) == w).mean(),
        (nearest == w).mean(),
        few_shot(key, x, y, z, w, classes, shots=SHOTS),
    )


def clp_measurements(
    clusters: ViewClusters, view: str, predicted: np.ndarray, arrays: Arrays, network: Network
) -> list[Measurement]:
    """CLP and the scores of the clusters; `predicted` is the cluster that the probe gives each test example."""
    found = score_clusters(clusters, predicted, arrays.fine["train"], arrays.fine["test"], network.super_class)
    reason = "" if found.cluster_accuracy_test is not None else f"the view {view} cannot embed new points"
    return [
        of_fine("clp", "test", found.test_accuracy, view=view),
        of_fine("clp_oracle", "test", found.test_accuracy_oracle, view=view),
        *cluster_measurements(clusters, view, arrays, network),
        of_fine("cluster_accuracy", "test", found.cluster_accuracy_test, view=view, reason=reason),
    ]


def cluster_measurements(clusters: ViewClusters, view: str, arrays: Arrays, network: Network) -> list[Measurement]:
    """The scores of the clusters of the training split."""
    found = score_training_clusters(clusters, arrays.fine["train"], network.super_class)
    inertia = clusters.inertia * frame_of(network.train.rows).scale ** find_view(view).power
    return [
        of_fine("cluster_accuracy", "train", found.accuracy, view=view),
        of_fine("cluster_ari", "train", found.ari, view=view),
        of_fine("cluster_nmi", "train", found.nmi, view=view),
        of_fine("inertia", "train", inertia, view=view),
    ]


def of_fine(
    metric: str, split: str, value: float | None, *, view: str | None = None, std: float | None = None, reason: str = ""
) -> Measurement:
    """A measurement to fine labels."""
    return Measurement(metric=metric, split=split, level="fine", value=value, view=view, std=std, reason=reason)


def whole_clusters(found: ViewClusters, arrays: Arrays, network: Network) -> Clusters:
    """The clusters of one network over all rows of the splits; -1 for those that hold NaN."""

    def spread(values: np.ndarray, name: str, count: int, fill: int | float) -> np.ndarray:
        whole = np.full((1, count, *values.shape[1:]), fill, values.dtype)
        whole[0, arrays.kept[name]] = values
        return whole

    train, test, plane = len(network.train.fine), network.test and len(network.test.fine), found.embedding
    return Clusters(
        train=spread(found.train, "train", train, -1),
        test=None if found.test is None or not test else spread(found.test, "test", test, -1),
        super_class=np.array([found.super_class], np.int32),
        matching=match_to_classes(found, arrays.fine["train"], network.super_class)[None],
        embedding=None if plane is None else spread(plane, "train", train, np.nan),
    )
