# SPDX-License-Identifier: Apache-2.0
"""Probes, clusters and CLP of one network whose features are larger than the memory that may be used.

The rows are read a block at a time, some dozen times. What is held beside a block: labels, 8 numbers a row for the view
residual_pca, moments of the super-classes, and samples of the rows. All of it is made to fit the memory that is given,
but for what grows with the rows.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Int32

from ncjax.collapse.reading import Labelled, block_size, blocks
from ncjax.distributed.processes import to_host
from ncjax.errors import UserError
from ncjax.evaluation.clusters import Examples, ViewClusters, check_counts, cluster_networks
from ncjax.evaluation.label_levels import merges
from ncjax.evaluation.linear_probe import LinearProbe
from ncjax.evaluation.networks import Network
from ncjax.evaluation.probes import (
    NEIGHBOURS,
    SHOTS,
    Probed,
    clp_measurements,
    cluster_measurements,
    of_fine,
    whole_clusters,
)
from ncjax.evaluation.streamed_clusters import MOST_PASSES, SuperClasses, cluster_streamed, nearest_clusters
from ncjax.evaluation.streamed_moments import (
    ClassMeans,
    Scaling,
    class_means,
    scaling_of,
    total_products,
)
from ncjax.evaluation.streamed_probe import Problem, fit_streamed_probe
from ncjax.evaluation.streamed_simple import simple_probes
from ncjax.evaluation.streamed_views import embed_on_axes, products_of_groups, rows_of_planes, vote_for_others
from ncjax.evaluation.tasks import Options, Task
from ncjax.evaluation.views import find_view, whitened_axes
from ncjax.events import Advance
from ncjax.ops.precision import double_precision
from ncjax.results import Measurement

ON_AXES = "residual_pca"
IN_BLOCKS = ("raw", "normalised")  # views that are clustered a block at a time
COPIES = 4  # of the features in memory, and of the probabilities of all labellings, that the probes hold
STAGES = ("moments", "clusters", "linear probe", "simple probes")


def resident_bytes(network: Network, views: int) -> int:
    """What the probes of a network take where its features are in memory."""
    count = sum(split.rows.shape[0] for split in (network.train, network.test) if split is not None)
    columns = (1 + views) * len(network.super_class)
    return 4 * COPIES * count * (network.train.rows.shape[1] + columns)


def measure_streamed(network: Network, options: Options, advance: Advance) -> Probed:
    """`measure_probes` with the rows read a block at a time: the same measurements.

    Args:
        network: where it has no test split, probes and CLP are left out, and clusters are of the training split.
        options: of `measure_probes`; the memory is for samples and moments.
        advance: told of each of `STAGES` when it is done.
    """
    own, views = _Streamed(network, _task(network), options), options.views
    moments = _moments(own, bool(views) and merges(network.super_class) and ON_AXES in views)
    advance(1, STAGES[0])
    clusters, left_out = _clusters(own, moments, views)
    advance(1, STAGES[1])
    measurements: list[Measurement] = []
    if network.test is None:
        left_out = ("probes and clp: there is no test split", *left_out)
        for view, found in clusters.items():
            measurements += cluster_measurements(found, view, own.task)
    else:
        linear, predicted = _linear_probes(own, moments, clusters)
        advance(1, STAGES[2])
        measurements += [*linear, *_simple_probes(own, moments)]
        count = len(own.fine["train"])
        if count < NEIGHBOURS:
            left_out = (*left_out, f"knn_probe: there are {count} neighbours, not {NEIGHBOURS}")
        for (view, found), by in zip(clusters.items(), predicted, strict=True):
            measurements += clp_measurements(found, view, by, own.task)
    advance(1 if network.test else len(STAGES) - 2, STAGES[-1])
    return Probed(tuple(measurements), whole_clusters(clusters, own.task), left_out)


class _Streamed(NamedTuple):
    """A network, which of its rows count, and how it is measured."""

    network: Network
    task: Task  # without rows
    options: Options

    @property
    def fine(self) -> Mapping[str, Int32[np.ndarray, "_"]]:
        """Labels of the rows that count."""
        return self.task.examples.fine


class _Moments(NamedTuple):
    """Of the training rows that count."""

    of_classes: ClassMeans
    of_groups: ClassMeans  # super-classes
    products: Float64[np.ndarray, "d d"]  # around the mean of all
    axes: Float64[np.ndarray, "g d p"] | None  # of residual_pca; None: not asked for
    scaling: Scaling


def _task(network: Network) -> Task:
    splits = {"train": network.train} | ({} if network.test is None else {"test": network.test})
    kept = {name: np.flatnonzero(split.counts > 0).astype(np.int32) for name, split in splits.items()}
    fine = {name: split.fine[kept[name]] for name, split in splits.items()}
    return Task(network, Examples({}, fine, network.super_class), kept)


def _groups(network: Network, means: Float64[np.ndarray, "g d"], split: Labelled) -> SuperClasses:
    coarse = np.asarray(network.super_class, np.int32)
    return SuperClasses(coarse[split.fine], np.bincount(coarse), means)


def _moments(own: _Streamed, with_axes: bool) -> _Moments:
    """By two passes: means, then products; by more where products of all super-classes do not fit."""
    network, data = own.network, own.network.train
    of_classes = class_means(data, len(network.super_class))
    of_groups = of_classes.merged(np.asarray(network.super_class))
    groups, around = _groups(network, of_groups.means, data), of_groups
    if not with_axes:
        around = of_classes.merged(np.zeros(len(network.super_class), int))
        groups = SuperClasses(np.zeros_like(groups.owner), np.ones(1, int), around.means)
    total, axes = np.zeros((data.rows.shape[1],) * 2), []
    for group, products in products_of_groups(data, groups, own.options.memory_bytes):
        total += products
        if with_axes:
            axes.append(_axes(products / max(1, of_groups.counts[group]), float(of_groups.largest[group])))
    products = total_products(total, around)
    scaling = scaling_of(of_classes, np.diag(products))
    return _Moments(of_classes, of_groups, products, np.stack(axes) if with_axes else None, scaling)


def _axes(covariance: Float64[np.ndarray, "d d"], largest: float) -> Float64[np.ndarray, "d p"]:
    with double_precision():
        return np.asarray(whitened_axes(jnp.asarray(covariance), jnp.asarray(largest)))


# ------------------------------------------------------------------ clusters


def _clusters(
    own: _Streamed, moments: _Moments, views: Sequence[str]
) -> tuple[dict[str, ViewClusters], tuple[str, ...]]:
    """Clusters of each view, and lines that say what is missing or has not converged."""
    network = own.network
    if not views:
        return {}, ()
    if not merges(network.super_class):
        return {}, ("clp: no label map that merges classes",)
    try:
        check_counts(own.task.examples)
    except UserError as error:
        return {}, (f"clp: {error}",)
    found, left_out = _clusters_in_blocks(own, moments, [view for view in views if view in IN_BLOCKS])
    if ON_AXES in views:
        found[ON_AXES] = _clusters_on_axes(own, moments)
    found |= {view: _clusters_in_plane(own, view) for view in views if find_view(view).plane is not None}
    unknown = tuple(f"clp: the view {view} needs the features in memory" for view in views if view not in found)
    return {view: found[view] for view in views if view in found}, (*left_out, *unknown)


def _clusters_in_blocks(
    own: _Streamed, moments: _Moments, views: Sequence[str]
) -> tuple[dict[str, ViewClusters], tuple[str, ...]]:
    if not views:
        return {}, ()
    network, kept = own.network, own.task.kept
    groups = _groups(network, moments.of_groups.means, network.train)
    key = jax.random.key(own.options.seed)
    found = cluster_streamed(
        key, network.train, groups, views, own.options.restarts, own.options.memory_bytes, network.mesh
    )
    test: Mapping[str, np.ndarray] = {}
    if network.test is not None:
        centroids = {view: one.centroids for view, one in found.items()}
        test = nearest_clusters(network.test, _groups(network, groups.means, network.test), centroids, network.mesh)
    clusters = {
        view: ViewClusters(
            train=one.train[kept["train"]],
            test=_of_test(test.get(view), own),
            super_class=tuple(map(int, groups.of_clusters)),
            inertia=one.inertia,
        )
        for view, one in found.items()
    }
    slow = [view for view, one in found.items() if not one.converged]
    return clusters, tuple(f"clp: k-means in view {view} had not converged after {MOST_PASSES} passes" for view in slow)


def _of_test(labels: Int32[np.ndarray, "m"] | None, own: _Streamed) -> Int32[np.ndarray, "_"]:
    return np.zeros(0, np.int32) if labels is None else labels[own.task.kept["test"]]


def _clusters_on_axes(own: _Streamed, moments: _Moments) -> ViewClusters:
    assert moments.axes is not None
    network, width = own.network, moments.axes.shape[2]
    embedded = {name: np.zeros((0, width), np.float32) for name in ("train", "test")}
    for name, split in (("train", network.train), ("test", network.test)):
        if split is not None:
            groups = _groups(network, moments.of_groups.means, split)
            embedded[name] = embed_on_axes(split, groups, moments.axes)[own.task.kept[name]]
    return _clustered(own, embedded, own.fine)


def _clustered(
    own: _Streamed, embedded: Mapping[str, np.ndarray], fine: Mapping[str, Int32[np.ndarray, "_"]]
) -> ViewClusters:
    """Of examples that were embedded before."""
    labels = {name: fine.get(name, np.zeros(0, np.int32)) for name in ("train", "test")}
    examples, how = Examples(embedded, labels, own.network.super_class), own.options
    (found,) = cluster_networks([examples], ("raw",), restarts=how.restarts, seed=how.seed)
    return found["raw"]


def _clusters_in_plane(own: _Streamed, view: str) -> ViewClusters:
    """Some rows of each super-class are embedded; the others vote."""
    embed, train, kept = find_view(view).plane, own.network.train, own.task.kept["train"]
    assert embed is not None
    coarse = np.asarray(own.network.super_class, np.int32)
    chosen = rows_of_planes(coarse[train.fine], kept, np.bincount(coarse))
    plane = np.concatenate([embed(np.asarray(train.rows[rows], np.float32)) for rows in chosen]).astype(np.float32)
    embedded = {"train": plane, "test": np.zeros((0, 2), np.float32)}
    found = _clustered(own, embedded, {"train": train.fine[np.concatenate(chosen)]})
    voted = vote_for_others(train, coarse[train.fine], chosen, found.train)[kept]
    whole = np.full((len(train.fine), 2), np.nan, np.float32)
    whole[np.concatenate(chosen)] = plane
    return dataclasses.replace(found, train=voted, test=None, embedding=whole[kept])


# ------------------------------------------------------------------ probes


def _linear_probes(
    own: _Streamed, moments: _Moments, clusters: Mapping[str, ViewClusters]
) -> tuple[list[Measurement], list[Int32[np.ndarray, "_"]]]:
    """One fit for the true labels and the clusters of each view; and which clusters it predicts for the test split."""
    network, kept = own.network, own.task.kept
    assert network.test is not None
    labels = np.zeros((1 + len(clusters), len(network.train.fine)), np.int32)
    labels[0] = network.train.fine
    for row, found in zip(labels[1:], clusters.values(), strict=True):
        row[kept["train"]] = found.train
    problem = Problem(network.train, labels, len(network.super_class), moments.scaling, mesh=network.mesh)
    probe, accuracy = fit_streamed_probe(problem, own.options.memory_bytes)
    held, *predicted = _predicted(probe, network.test, network)[:, kept["test"]]
    return [
        of_fine("probe", "train", float(accuracy[0])),
        of_fine("probe", "test", float((held == own.fine["test"]).mean())),
        of_fine("probe_gradient_norm", "train", float(probe.gradient_norm[0])),
        of_fine("probe_converged", "train", float(probe.converged[0])),
    ], predicted


def _predicted(probe: LinearProbe, split: Labelled, network: Network) -> Int32[np.ndarray, "p m"]:
    mesh = network.mesh
    size = block_size(split, mesh.size if mesh else 1)
    found = [to_host(probe.predict(block.features))[:, :size] for block in blocks(split, mesh)]
    return np.concatenate(found, axis=1)


def _simple_probes(own: _Streamed, moments: _Moments) -> list[Measurement]:
    """Probes on fine labels that need no iterations."""
    train, test, fine = own.network.train, own.network.test, own.fine
    assert test is not None
    found = simple_probes(
        jax.random.key(own.options.seed),
        train,
        test,
        moments.of_classes,
        moments.products,
        neighbours=min(NEIGHBOURS, len(fine["train"])),
        shots=SHOTS,
        memory_bytes=own.options.memory_bytes,
    )
    return [
        of_fine("ridge_probe", "test", found.ridge),
        of_fine("knn_probe", "test", found.nearest),
        of_fine("few_shot", "test", float(found.few_shot.mean()), std=float(found.few_shot.std())),
    ]
