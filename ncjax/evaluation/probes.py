# SPDX-License-Identifier: Apache-2.0
"""Probes, clusters and CLP, as measurements; networks of the same shapes go through the same programs together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int32, Key

from ncjax.collapse.reading import Labelled
from ncjax.distributed.processes import is_distributed, to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.errors import UserError
from ncjax.evaluation.clp import match_to_classes, score_clusters, score_training_clusters
from ncjax.evaluation.clusters import Examples, ViewClusters, check_counts, cluster_networks
from ncjax.evaluation.label_levels import merges
from ncjax.evaluation.linear_probe import fit_linear_probe
from ncjax.evaluation.networks import Network
from ncjax.evaluation.simple_probes import few_shot, nearest_neighbours, ridge_probe
from ncjax.evaluation.streamed_moments import centred_products, class_means, total_products
from ncjax.evaluation.streamed_simple import Simple, simple_probes
from ncjax.evaluation.tasks import Options, Task, make_task, rows_on_devices, whole_rows
from ncjax.evaluation.views import find_view
from ncjax.ops.xla import jit_by_size
from ncjax.results import Clusters, Measurement, MetricInfo, Scope
from ncjax.storage.arrays import frame_of

RESIDENT_BYTES = 2**30  # of features that go through programs together
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


Tell: TypeAlias = Callable[[str, int], None]


class Probed(NamedTuple):
    """What was found of one network; clusters have -1 for rows with NaN."""

    measurements: tuple[Measurement, ...]
    clusters: Mapping[str, Clusters]
    left_out: tuple[str, ...]


def measure_probes(
    networks: Sequence[Network], options: Options, tell: Tell = lambda what, count: None
) -> list[Probed]:
    """Accuracies of probes on the fine labels, clusters in each view, and CLP.

    Args:
        networks: where one has no test split, probes and CLP are left out, and clusters are of the training split.
        options: of all of them.
        tell: called with the name of what was measured and how many: each network has its views and its probes.

    Returns:
        Of each network, in their order.
    """
    found: dict[int, Probed] = {}
    for indices in _together(networks):
        found |= zip(indices, _measure([make_task(networks[i]) for i in indices], options, tell), strict=True)
    return [found[i] for i in range(len(networks))]


def _together(networks: Sequence[Network]) -> Iterator[list[int]]:
    """Networks that go through the programs together: of the same shapes, and as many as fit."""
    alike: dict[object, list[int]] = {}
    for i, network in enumerate(networks):
        alike.setdefault(_shapes(network), []).append(i)
    for indices in alike.values():
        size = max(1, RESIDENT_BYTES // _bytes(networks[indices[0]].train))
        yield from (indices[first : first + size] for first in range(0, len(indices), size))


def _bytes(split: Labelled) -> int:
    return 4 * int(np.prod(split.rows.shape))


def _shapes(network: Network) -> tuple[object, ...]:
    counts = [0 if split is None else int((split.counts > 0).sum()) for split in (network.train, network.test)]
    return *counts, network.train.rows.shape[1], len(network.super_class), merges(network.super_class), network.mesh


class _Clustered(NamedTuple):
    """Clusters of a network by view, or none and a line that says why."""

    views: Mapping[str, ViewClusters]
    left_out: tuple[str, ...]


class _Linear(NamedTuple):
    """What linear probes find: the first of the true labels, the others of the clusters of each view."""

    right: Int32[Array, "s"]  # training examples that the first classifies as they are labelled
    predicted: Int32[Array, "s p m"]  # of the test examples
    gradient_norm: Float[Array, "s"]  # of the first
    converged: Bool[Array, "s"]


class _Simple(NamedTuple):
    """Test accuracies of the probes that need no iterations."""

    ridge: Float[Array, "s"]
    nearest: Float[Array, "s"]
    few_shot: Float[Array, "s e"]  # of each episode


def _measure(tasks: Sequence[Task], options: Options, tell: Tell) -> list[Probed]:
    """Of networks of the same shapes."""
    clustered = _cluster(tasks, options, tell)
    if tasks[0].network.test is None:
        tell("clusters", len(tasks))
        return [_without_test(*one) for one in zip(tasks, clustered, strict=True)]
    linear: _Linear = to_host(_linear_probes(tasks, clustered, options))
    simple = _simple_by_shares(tasks, options) if is_distributed() else to_host(_simple_probes(tasks, options.seed))
    tell("probes", len(tasks))
    return [_probed(*one) for one in zip(tasks, clustered, _one_by_one(linear), _one_by_one(simple), strict=True)]


def _cluster(tasks: Sequence[Task], options: Options, tell: Tell) -> list[_Clustered]:
    reasons = [_why_no_clusters(task.examples, options.views) for task in tasks]
    able = [task.examples for task, reason in zip(tasks, reasons, strict=True) if reason is None]
    tell("clusters", (len(tasks) - len(able)) * len(options.views))
    found = cluster_networks(
        able,
        options.views,
        restarts=options.restarts,
        seed=options.seed,
        mesh=tasks[0].network.mesh,
        tell=lambda view: tell(view, len(able)),
    )
    of_able = iter(found)
    return [_Clustered(next(of_able), ()) if reason is None else _Clustered({}, reason) for reason in reasons]


def _why_no_clusters(examples: Examples, views: Sequence[str]) -> tuple[str, ...] | None:
    """Lines that say it; None where there are clusters."""
    if not views:
        return ()
    if not merges(examples.super_class):
        return ("clp: no label map that merges classes",)
    try:
        check_counts(examples)
    except UserError as error:
        return (f"clp: {error}",)
    return None


def _linear_probes(tasks: Sequence[Task], clustered: Sequence[_Clustered], options: Options) -> _Linear:
    """One fit of each network, for the true labels and the clusters of each view; where it has none, the true ones."""
    mesh, classes = tasks[0].network.mesh, len(tasks[0].examples.super_class)
    labels = np.stack(
        [
            [fine, *(found.views[view].train if found.views else fine for view in options.views)]
            for fine, found in zip((task.examples.fine["train"] for task in tasks), clustered, strict=True)
        ]
    )
    train, test = (rows_on_devices(tasks, split, mesh) for split in ("train", "test"))
    present = None if mesh is None else shard_rows(np.ones(labels.shape[2], np.float32), mesh)
    found = _fit(train, shard_rows(labels, mesh, axis=2), test, present, classes, mesh)
    return found._replace(predicted=found.predicted[:, :, : tasks[0].examples.rows["test"].shape[0]])


@partial(jit_by_size, static_argnames=("classes", "mesh"))
def _fit(
    train: Float[Array, "s n d"],
    labels: Int32[Array, "s p n"],
    test: Float[Array, "s m d"],
    present: Float[Array, "n"] | None,
    classes: int,
    mesh: Mesh | None,
) -> _Linear:
    """One network after the other; where `present` is 0 there is padding."""

    def one(network: tuple[Array, Array, Array]) -> _Linear:
        x, y, z = network
        probes = fit_linear_probe(x, y, classes, weights=present, mesh=mesh)
        first = probes._replace(weights=probes.weights[0], bias=probes.bias[0])
        right = first.predict(x) == y[0]
        right = right if present is None else right & (present > 0)
        return _Linear(right.sum(dtype=jnp.int32), probes.predict(z), probes.gradient_norm[0], probes.converged[0])

    return lax.map(one, (train, labels, test))


def _simple_probes(tasks: Sequence[Task], seed: int) -> _Simple:
    train, test = (whole_rows(tasks, name) for name in ("train", "test"))
    fine = (np.stack([task.examples.fine[name] for task in tasks]) for name in ("train", "test"))
    return _simple_accuracies(jax.random.key(seed), train, test, *fine, len(tasks[0].examples.super_class))


def _simple_by_shares(tasks: Sequence[Task], options: Options) -> Any:
    """The same, of which each process reads its share of the rows."""
    found = [_simple_of_one(task, options) for task in tasks]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def _simple_of_one(task: Task, options: Options) -> Simple:
    train, test, classes = task.network.train, task.network.test, len(task.network.super_class)
    assert test is not None
    of_classes, every = class_means(train, classes), np.zeros(len(train.fine), np.int32)
    around = of_classes.merged(np.zeros(classes, int))
    (products,) = centred_products(train, every, around.means)
    return simple_probes(
        jax.random.key(options.seed),
        train,
        test,
        of_classes,
        total_products(products, around),
        neighbours=min(NEIGHBOURS, len(task.kept["train"])),
        shots=SHOTS,
        memory_bytes=options.memory_bytes,
    )


@partial(jit_by_size, static_argnames="classes")
def _simple_accuracies(
    key: Key[Array, ""],
    train: Float[Array, "s n d"],
    test: Float[Array, "s m d"],
    train_fine: Int32[Array, "s n"],
    test_fine: Int32[Array, "s m"],
    classes: int,
) -> _Simple:
    """One network after the other."""

    def one(network: tuple[Array, Array, Array, Array]) -> _Simple:
        x, z, y, w = network
        nearest = nearest_neighbours(x, y, z, classes, min(NEIGHBOURS, len(y)))
        return _Simple(
            (ridge_probe(x, y, classes).predict(z) == w).mean(),
            (nearest == w).mean(),
            few_shot(key, x, y, z, w, classes, shots=SHOTS),
        )

    return lax.map(one, (train, test, train_fine, test_fine))


def _one_by_one(found: Any) -> Iterator[Any]:
    """The parts of each network."""
    return (jax.tree.map(itemgetter(i), found) for i in range(len(found[0])))


def _without_test(task: Task, clustered: _Clustered) -> Probed:
    measurements = [one for view, found in clustered.views.items() for one in cluster_measurements(found, view, task)]
    left_out = ("probes and clp: there is no test split", *clustered.left_out)
    return Probed(tuple(measurements), whole_clusters(clustered.views, task), left_out)


def _probed(task: Task, clustered: _Clustered, linear: _Linear, simple: _Simple) -> Probed:
    fine, left_out = task.examples.fine, clustered.left_out
    if len(fine["train"]) < NEIGHBOURS:
        left_out = (*left_out, f"knn_probe: there are {len(fine['train'])} neighbours, not {NEIGHBOURS}")
    measurements = [
        of_fine("probe", "train", float(linear.right / len(fine["train"]))),
        of_fine("probe", "test", float((linear.predicted[0] == fine["test"]).mean())),
        of_fine("probe_gradient_norm", "train", float(linear.gradient_norm)),
        of_fine("probe_converged", "train", float(linear.converged)),
        of_fine("ridge_probe", "test", float(simple.ridge)),
        of_fine("knn_probe", "test", float(simple.nearest)),
        of_fine("few_shot", "test", float(simple.few_shot.mean()), std=float(simple.few_shot.std())),
    ]
    for (view, clusters), by in zip(clustered.views.items(), linear.predicted[1:], strict=False):
        measurements += clp_measurements(clusters, view, by, task)
    return Probed(tuple(measurements), whole_clusters(clustered.views, task), left_out)


def clp_measurements(
    clusters: ViewClusters, view: str, predicted: Int32[np.ndarray, "m"], task: Task
) -> list[Measurement]:
    """CLP, and how the clusters agree with the classes."""
    fine = task.examples.fine
    found = score_clusters(clusters, predicted, fine["train"], fine["test"], task.examples.super_class)
    reason = "" if found.cluster_accuracy_test is not None else f"the view {view} cannot embed new points"
    return [
        of_fine("clp", "test", found.test_accuracy, view=view),
        of_fine("clp_oracle", "test", found.test_accuracy_oracle, view=view),
        *cluster_measurements(clusters, view, task),
        of_fine("cluster_accuracy", "test", found.cluster_accuracy_test, view=view, reason=reason),
    ]


def cluster_measurements(clusters: ViewClusters, view: str, task: Task) -> list[Measurement]:
    """How the clusters of the training split agree with the classes, and their inertia."""
    found = score_training_clusters(clusters, task.examples.fine["train"], task.examples.super_class)
    inertia = clusters.inertia * frame_of(task.network.train.rows).scale ** find_view(view).power
    return [
        of_fine("cluster_accuracy", "train", found.accuracy, view=view),
        of_fine("cluster_ari", "train", found.ari, view=view),
        of_fine("cluster_nmi", "train", found.nmi, view=view),
        of_fine("inertia", "train", inertia, view=view),
    ]


def of_fine(
    metric: str, split: str, value: float | None, *, view: str | None = None, std: float | None = None, reason: str = ""
) -> Measurement:
    """A measurement of fine labels."""
    return Measurement(metric=metric, split=split, level="fine", value=value, view=view, std=std, reason=reason)


def whole_clusters(views: Mapping[str, ViewClusters], task: Task) -> dict[str, Clusters]:
    """The clusters of one network over all rows of the splits; -1 for those that hold NaN."""
    network, fine = task.network, task.examples.fine["train"]
    train, test = len(network.train.fine), network.test and len(network.test.fine)

    def spread(values: np.ndarray, name: str, count: int, fill: int | float) -> np.ndarray:
        whole = np.full((1, count, *values.shape[1:]), fill, values.dtype)
        whole[0, task.kept[name]] = values
        return whole

    return {
        view: Clusters(
            train=spread(found.train, "train", train, -1),
            test=None if found.test is None or not test else spread(found.test, "test", test, -1),
            super_class=np.array([found.super_class], np.int32),
            matching=match_to_classes(found, fine, network.super_class)[None],
            embedding=None if found.embedding is None else spread(found.embedding, "train", train, np.nan),
        )
        for view, found in views.items()
    }
