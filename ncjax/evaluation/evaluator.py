# SPDX-License-Identifier: Apache-2.0
"""The one evaluator: every metric, probe and view of features, whatever they come from."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ncjax.collapse import separation_law
from ncjax.collapse.measure import Measured, Problem, measure_networks
from ncjax.collapse.metrics import metric_infos
from ncjax.distributed.processes import broadcast_message
from ncjax.errors import UserError
from ncjax.evaluation.label_levels import AnyLabelMap
from ncjax.evaluation.networks import Network, list_networks
from ncjax.evaluation.probes import INFO, Probed, measure_probes
from ncjax.evaluation.streamed import measure_streamed, resident_bytes
from ncjax.evaluation.views import find_view
from ncjax.features.feature_set import FeatureSet
from ncjax.results import Clusters, Evaluation, Event, Row, SeparationFit, stack_clusters
from ncjax.storage.memory import free_bytes

DEFAULT_VIEWS = ("raw", "normalised", "residual_pca")
MOST_NETWORKS = 10  # with resamples at an epoch and layer; more show by themselves how measures vary
SHARE_OF_FREE = 0.5  # of the memory that is free, for an evaluation
SHARE_OF_PROBES = 0.5  # of that memory; collapse is measured beside them


def evaluate(
    features: FeatureSet | Sequence[FeatureSet],
    *,
    label_map: AnyLabelMap | None = None,
    views: Sequence[str] = DEFAULT_VIEWS,
    metrics: Sequence[str] | None = None,
    classifier: tuple[Any, Any] | None = None,
    bootstrap: int = 20,
    restarts: int = 10,
    seed: int = 0,
    memory_gib: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Evaluation:
    """Measures clusters, probes, CLP and collapse to coarse and to fine labels, of every network at every layer.

    Args:
        features: of one epoch, or several sets on the same examples, such as epochs or layers. Members bring their own
            label maps and classifiers.
        label_map: overrides the label maps of the members: a spec such as `mod:5` or `file:map.json`, the coarse label
            of each fine class, or a `LabelMap`. None, and none of a member: what needs coarse labels is left out.
        views: what k-means sees inside each super-class: names in `ncjax.evaluation.views.VIEWS`.
        metrics: of collapse: names in `ncjax.collapse.METRICS`; None: all.
        classifier: weights `[k d]` and bias `[k]` (or None) of a linear classifier of the coarse or of the fine
            classes, for NC3 and NC4; None: those of the features.
        bootstrap: resamples of the examples for the standard deviations of measures of collapse, where a setting has
            one seed and there are at most ten networks at an epoch and layer; 0: none.
        restarts: of k-means.
        seed: of k-means and of the draws of the few-shot probe.
        memory_gib: memory for the evaluation beside the features that are given in memory [GiB]; None: half of what is
            free. A network that needs more is read from where it lies, a block at a time, some dozen times.
        on_event: called with an `Event` before the first network, and after each; within a network that is read in
            blocks, with those of the stage `stream`.

    Returns:
        A row for each network with its measurements, and `clusters[view]`, the reconstructed label of every example.

    Raises:
        UserError: a name is unknown, a number is out of range, or features, labels and label map do not fit each other.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(80) % 4
        >>> noise = np.random.default_rng(0).normal(size=(80, 4))
        >>> points = (np.eye(4)[labels] + 0.05 * noise).astype(np.float32)
        >>> features = FeatureSet.from_arrays(points[::2], labels[::2] // 2, points[1::2], labels[1::2] // 2)
        >>> found = evaluate(features, views=(), bootstrap=0)
        >>> found.rows[0].value("nc1", split="train", level="fine") < 0.3
        True
    """
    _check_options(views, metrics, bootstrap, restarts, memory_gib)
    sets = [features] if isinstance(features, FeatureSet) else list(features)
    if not sets:
        raise UserError("features hold no set; give a FeatureSet, or one for each epoch or layer")
    networks = list_networks(sets, label_map, classifier)
    options = _Options(tuple(views), metrics, restarts, seed, _memory_bytes(memory_gib))
    tell = on_event or (lambda event: None)
    tell(Event("evaluate", 0, len(networks)))
    resamples = _resamples(networks, bootstrap)
    probed, measured = _measure_networks(networks, options, resamples, tell)
    rows = [_row(*one) for one in zip(networks, probed, measured, resamples, strict=True)]
    separation, notes = _separation(rows)
    return Evaluation(
        rows=tuple(rows),
        metrics=INFO | metric_infos(metrics),
        views={view: find_view(view).info for view in views},
        separation=separation,
        notes=notes,
        clusters=_stacked([one.clusters for one in probed]),
    )


class _Options(NamedTuple):
    views: tuple[str, ...]
    metrics: Sequence[str] | None
    restarts: int
    seed: int
    memory_bytes: int


def _stacked(clusters: Sequence[Mapping[str, Clusters]]) -> dict[str, Clusters]:
    """The clusters of all networks, by view."""
    views = dict.fromkeys(view for found in clusters for view in found)
    return {view: stack_clusters([(found.get(view), 1) for found in clusters]) for view in views}


def _check_options(
    views: Sequence[str], metrics: Sequence[str] | None, bootstrap: int, restarts: int, memory_gib: float | None
) -> None:
    check_views(views)
    metric_infos(metrics)
    if bootstrap < 0 or bootstrap == 1:
        raise UserError(f"bootstrap is {bootstrap}, but must be 0 or at least 2")
    if restarts < 1:
        raise UserError(f"restarts is {restarts}, but must be 1 or more")
    if memory_gib is not None and not 0 < memory_gib < math.inf:
        raise UserError(f"memory_gib is {memory_gib}, but must be above 0 and finite")


def check_views(views: Sequence[str]) -> None:
    """Refuses names that are not in `VIEWS`.

    Raises:
        UserError: naming the first of them and those that are known.
    """
    for view in views:
        find_view(view)


def _memory_bytes(memory_gib: float | None) -> int:
    """The same on every process."""
    return int(broadcast_message(str(int(SHARE_OF_FREE * free_bytes() if memory_gib is None else memory_gib * 2**30))))


def _resamples(networks: Sequence[Network], bootstrap: int) -> list[int]:
    """Resamples of each network: none where seeds of a setting, or many networks, show how measures vary."""
    seeds = Counter(network.setting for network in networks)
    at_once = Counter(network.setting[:2] for network in networks)
    return [
        bootstrap if seeds[network.setting] == 1 and at_once[network.setting[:2]] <= MOST_NETWORKS else 0
        for network in networks
    ]


def _measure_networks(
    networks: Sequence[Network], options: _Options, resamples: Sequence[int], tell: Callable[[Event], None]
) -> tuple[list[Probed], list[Measured]]:
    """On one device collapse is measured beside the probes, whose compilation takes longest.

    On several, collectives keep one order.
    """
    if networks[0].mesh is not None:
        measured = _measure_collapse(networks, options, resamples)
        return _probe(networks, options, tell), measured
    with ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(_measure_collapse, networks, options, resamples)
        return _probe(networks, options, tell), measuring.result()


def _probe(networks: Sequence[Network], options: _Options, tell: Callable[[Event], None]) -> list[Probed]:
    probed: list[Probed] = []
    memory = int(SHARE_OF_PROBES * options.memory_bytes)
    for network in networks:
        asked = network, options.views, options.restarts, options.seed
        if resident_bytes(network, len(options.views)) <= memory:
            probed.append(measure_probes(*asked))
        else:
            probed.append(measure_streamed(*asked, memory, lambda *stage: tell(Event("stream", *stage))))
        tell(Event("evaluate", len(probed), len(networks), network.row.name))
    return probed


def _measure_collapse(networks: Sequence[Network], options: _Options, resamples: Sequence[int]) -> list[Measured]:
    problems = [
        Problem(
            train=network.train,
            test=network.test,
            super_class=network.super_class,
            classifier=network.classifier,
            classifier_level=network.classifier_level,
            no_classifier=network.no_classifier,
            resamples=count,
        )
        for network, count in zip(networks, resamples, strict=True)
    ]
    memory = int((1 - SHARE_OF_PROBES) * options.memory_bytes)
    return measure_networks(problems, metrics=options.metrics, mesh=networks[0].mesh, memory_bytes=memory)


def _row(network: Network, probed: Probed, measured: Measured, resamples: int) -> Row:
    return dataclasses.replace(
        network.row,
        measurements=(*network.row.measurements, *probed.measurements, *measured.measurements),
        class_distances=tuple(tuple(map(float, line)) for line in measured.class_distances),
        left_out=(*network.row.left_out, *measured.left_out, *probed.left_out),
        bootstrap=resamples,
    )


def _separation(rows: Sequence[Row]) -> tuple[tuple[SeparationFit, ...], tuple[str, ...]]:
    """The law of separation over the layers of each network, where there are several."""
    layers: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        layers.setdefault((row.name, row.epoch), []).append(row)
    fits, notes = [], []
    for (name, _), group in layers.items():
        for split in ("train", "test") if len(group) > 1 else ():
            for level in ("coarse", "fine"):
                values = [row.value("separation", split=split, level=level) for row in group]
                if any(value is None for value in values):
                    continue
                try:
                    fit = separation_law([value for value in values if value is not None])
                except UserError as error:
                    notes.append(f"{name}, {split}, {level}: {error}")
                    continue
                fits.append(SeparationFit(name=name, split=split, level=level, **fit._asdict()))
    return tuple(fits), tuple(notes)
