# SPDX-License-Identifier: Apache-2.0
"""The one evaluator: every metric, probe and view of features, whatever they come from."""

import dataclasses
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ncjax.collapse import separation_law
from ncjax.collapse.measure import Measured, Problem, measure_networks
from ncjax.collapse.metrics import metric_infos
from ncjax.distributed.processes import broadcast_message
from ncjax.errors import UserError
from ncjax.evaluation.label_levels import AnyLabelMap
from ncjax.evaluation.networks import Network, list_networks
from ncjax.evaluation.probes import INFO, Probed, Tell, measure_probes
from ncjax.evaluation.streamed import STAGES, measure_streamed, resident_bytes
from ncjax.evaluation.tasks import Options
from ncjax.evaluation.views import find_view
from ncjax.events import Advance, Listener, stage, tell
from ncjax.features.feature_set import FeatureSet
from ncjax.ops.linalg import one_thread_each
from ncjax.results import Clusters, Evaluation, Row, SeparationFit, stack_clusters
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
    on_event: Listener | None = None,
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
        on_event: called with an `Event` at the start, when a part of the work is done (a view, probes or collapse of
            some networks) and at the end; from any thread. A network that is read in blocks has its own, of the stage
            `stream`. None: those who listen are told (`ncjax.events.listening`).

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
    sets = [features] if isinstance(features, FeatureSet) else list(features)
    (found,) = evaluate_jobs(
        [Job(sets, bootstrap, label_map, classifier)],
        views=views,
        metrics=metrics,
        restarts=restarts,
        seed=seed,
        memory_gib=memory_gib,
        on_event=on_event,
    )
    return found


class Job(NamedTuple):
    """Sets of features that are evaluated as one, as `evaluate` has them."""

    sets: Sequence[FeatureSet]
    bootstrap: int = 20
    label_map: AnyLabelMap | None = None
    classifier: tuple[Any, Any] | None = None


def evaluate_jobs(
    jobs: Sequence[Job],
    *,
    views: Sequence[str] = DEFAULT_VIEWS,
    metrics: Sequence[str] | None = None,
    restarts: int = 10,
    seed: int = 0,
    memory_gib: float | None = None,
    on_event: Listener | None = None,
) -> list[Evaluation]:
    """`evaluate` of several jobs, whose networks go through the same programs together.

    Args:
        jobs: what is evaluated.
        views: as for `evaluate`.
        metrics: as for `evaluate`.
        restarts: as for `evaluate`.
        seed: as for `evaluate`.
        memory_gib: as for `evaluate`.
        on_event: as for `evaluate`.

    Raises:
        UserError: as for `evaluate`.
    """
    for job in jobs:
        _check_options(views, metrics, job.bootstrap, restarts, memory_gib)
        if not job.sets:
            raise UserError("features hold no set; give a FeatureSet, or one for each epoch or layer")
    lists = [list_networks(job.sets, job.label_map, job.classifier) for job in jobs]
    resamples = [count for job, networks in zip(jobs, lists, strict=True) for count in _resamples(networks, job)]
    memory = _memory_bytes(memory_gib)
    options = Options(tuple(views), restarts, seed, int(SHARE_OF_PROBES * memory))
    networks = [network for part in lists for network in part]
    asked = partial(measure_networks, metrics=metrics, memory_bytes=memory - options.memory_bytes)
    measured = _measure(networks, options, asked, resamples, on_event or tell)
    parts = iter(zip(networks, *measured, resamples, strict=True))
    return [_evaluation(list(islice(parts, len(part))), options.views, metrics) for part in lists]


class _Found(NamedTuple):
    """Everything about one network."""

    network: Network
    probed: Probed
    measured: Measured
    resamples: int


def _evaluation(parts: Sequence[tuple[Any, ...]], views: Sequence[str], metrics: Sequence[str] | None) -> Evaluation:
    found = [_Found(*part) for part in parts]
    rows = [_row(one) for one in found]
    separation, notes = _separation(rows)
    return Evaluation(
        rows=tuple(rows),
        metrics=INFO | metric_infos(metrics),
        views={view: find_view(view).info for view in views},
        separation=separation,
        notes=notes,
        clusters=_stacked([one.probed.clusters for one in found]),
    )


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


def _resamples(networks: Sequence[Network], job: Job) -> list[int]:
    """Resamples of each network: none where seeds of a setting, or many networks, show how measures vary."""
    seeds = Counter(network.setting for network in networks)
    at_once = Counter(network.setting[:2] for network in networks)
    return [
        job.bootstrap if seeds[network.setting] == 1 and at_once[network.setting[:2]] <= MOST_NETWORKS else 0
        for network in networks
    ]


def _measure(
    networks: Sequence[Network],
    options: Options,
    measure_collapse: Callable[..., list[Measured]],
    resamples: Sequence[int],
    on_event: Listener,
) -> tuple[list[Probed], list[Measured]]:
    """On one device collapse is measured beside the probes, whose compilation takes longest.

    On several, collectives keep one order. An exception in one thread ends the other behind its program.
    """
    problems, mesh = [_problem(*one) for one in zip(networks, resamples, strict=True)], networks[0].mesh
    ended, parts = threading.Event(), len(networks) * (len(options.views) + 2)
    count = f"{len(networks)} network{'s' * (len(networks) > 1)}"
    with stage("evaluate", count, total=parts, on_event=on_event) as advance:
        told = _until(ended, advance)
        collapse = partial(measure_collapse, problems, mesh=mesh, tell=partial(told, "collapse"))
        if mesh is not None:
            measured = collapse()
            return _probe(networks, options, told, on_event), measured
        with one_thread_each(), ThreadPoolExecutor(1) as pool:
            measuring = pool.submit(collapse)
            try:
                return _probe(networks, options, told, on_event), measuring.result()
            finally:
                ended.set()


def _probe(networks: Sequence[Network], options: Options, tell: Tell, on_event: Listener) -> list[Probed]:
    """Networks that fit the memory go together, then each of the others is read in blocks."""
    fitting = [resident_bytes(network, len(options.views)) <= options.memory_bytes for network in networks]
    together = [network for network, fits in zip(networks, fitting, strict=True) if fits]
    found = iter(measure_probes(together, options, tell))
    probed = []
    for network, fits in zip(networks, fitting, strict=True):
        if fits:
            probed.append(next(found))
            continue
        with stage("stream", network.row.name, total=len(STAGES), on_event=on_event) as advance:
            probed.append(measure_streamed(network, options, advance))
        tell("probes", len(options.views) + 1)
    return probed


def _until(ended: threading.Event, advance: Advance) -> Tell:
    """Tells what is done in both threads; behind the end it refuses to go on."""

    def tell(what: str, count: int) -> None:
        if ended.is_set():
            raise RuntimeError("the evaluation was ended")
        if count:
            advance(count, what)

    return tell


def _problem(network: Network, resamples: int) -> Problem:
    return Problem(
        train=network.train,
        test=network.test,
        super_class=network.super_class,
        classifier=network.classifier,
        classifier_level=network.classifier_level,
        no_classifier=network.no_classifier,
        resamples=resamples,
    )


def _row(found: _Found) -> Row:
    row, measured = found.network.row, found.measured
    return dataclasses.replace(
        row,
        measurements=(*row.measurements, *found.probed.measurements, *measured.measurements),
        class_distances=_numbers(measured.class_distances),
        test_distances=() if measured.test_distances is None else _numbers(measured.test_distances),
        left_out=(*row.left_out, *measured.left_out, *found.probed.left_out),
        bootstrap=found.resamples,
    )


def _numbers(matrix: Float[np.ndarray, "f f"]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, line)) for line in matrix)


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
