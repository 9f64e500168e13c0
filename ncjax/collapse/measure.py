# SPDX-License-Identifier: Apache-2.0
"""Measures the metrics of `METRICS` on features: both splits, coarse and fine classes, and why a value is missing.

Two passes over the features, a block at a time: moments, then what needs each example beside them (silhouettes, NC4).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, PyTree, Shaped

from ncjax.collapse.metrics import select
from ncjax.collapse.reading import Classifier, Labelled, blocks, gather_moments, subsample
from ncjax.collapse.record import Function, Inputs, Metric
from ncjax.collapse.statistics import ClassStatistics, merge_classes
from ncjax.collapse.variability import class_distances
from ncjax.distributed.processes import to_host
from ncjax.results import Measurement
from ncjax.storage.arrays import frame_of

MOST_FEATURES = 2048  # of whose covariance all eigenvalues are computed
CONSTANT = "all features are the same"
UNDEFINED = "undefined: too few classes, or classes without variance or at one point"
LEVELS = ("coarse", "fine", "within", "all")
NO_CLASSIFIER = "there are no classifier weights"

ClassifierLevel = Literal["coarse", "fine"]
Results: TypeAlias = dict[Function, PyTree]  # of the functions of metrics


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        measurements: in the order of splits, levels and metrics; one without value has a reason.
        class_distances: mean squared distance between examples of two fine classes, training split, in
            squared units of the features.
        left_out: lines that say what is missing, and why.
    """

    measurements: tuple[Measurement, ...]
    class_distances: Float[np.ndarray, "f f"]
    left_out: tuple[str, ...]


def measure(
    train: Labelled,
    test: Labelled | None,
    super_class: tuple[int, ...],
    *,
    metrics: Sequence[str] | None = None,
    classifier: Classifier | None = None,
    classifier_level: ClassifierLevel | None = None,
    no_classifier: str = NO_CLASSIFIER,
    mesh: Mesh | None = None,
) -> Measured:
    """Measures both splits.

    Args:
        train: fine labels in `0..f-1`, of which a class may have no example; NC4 uses the class means of this split.
        test: none: left out; its rows have the frame of the training split.
        super_class: coarse label of each fine class; where it merges none, the fine level is measured alone.
        metrics: names in `METRICS`; none: all.
        classifier: of rows in their frame, with as many classes as there are coarse or fine labels; none: NC3 and NC4
            have no value.
        classifier_level: the labels that its classes are; none: decided by the number of its classes.
        no_classifier: why there is none, for NC3 and NC4.
        mesh: devices that examples are sharded over (`ncjax.distributed.mesh`); none: one device.

    Raises:
        UserError: a metric is unknown.
    """
    fitted, level, misfit = _fit_classifier(classifier, classifier_level, super_class)
    task = _Task(
        metrics=select(metrics),
        super_class=super_class,
        features=train.rows.shape[1],
        classifier=fitted,
        level=level,
        no_classifier=no_classifier if classifier is None else misfit,
        mesh=mesh,
    )
    left_out = list(_reasons(task, test))
    measurements: list[Measurement] = []
    means: ClassStatistics | None = None
    distances: list[np.ndarray] = []
    for name, split in (("train", train), ("test", test)):
        if split is None:
            continue
        found = _measure_split(task, split, means)
        means = found.means if means is None else means
        distances.append(found.class_distances)
        left_out += _odd_classes(name, found.counts)
        if not found.total > 0:
            left_out.append(f"{name}: every measure: {CONSTANT}")
        measured = tuple(_measurements(task, name, found, frame_of(split.rows).scale))
        left_out += _undefined(task, measured) if found.total > 0 else ()
        measurements += measured
    return Measured(tuple(measurements), distances[0], tuple(left_out))


# ------------------------------------------------------------------ what is measured


@dataclass(frozen=True, kw_only=True)
class _Task:
    metrics: Mapping[str, Metric]
    super_class: tuple[int, ...]
    features: int
    classifier: Classifier | None  # None too where it fits no level
    level: ClassifierLevel | None  # of the classifier
    no_classifier: str  # why NC3 and NC4 have no value, at one level or both
    mesh: Mesh | None

    @property
    def fine(self) -> int:
        return len(self.super_class)

    @property
    def coarse(self) -> int:
        return max(self.super_class) + 1

    @property
    def levels(self) -> tuple[str, ...]:
        return LEVELS if self.coarse < self.fine else ("fine", "all")

    @property
    def computed(self) -> tuple[Metric, ...]:
        """The metrics that have a value."""
        return tuple(metric for metric in self.metrics.values() if not self.reason(metric))

    def functions(self, inputs: Inputs) -> tuple[Function, ...]:
        """Functions of the metrics that are computed from these inputs, each once."""
        return tuple(dict.fromkeys(metric.function for metric in self.computed if metric.inputs == inputs))

    def reason(self, metric: Metric) -> str:
        """Why a metric has no value at any level; empty: it has one."""
        if metric.eigenvalues and self.features > MOST_FEATURES:
            return f"more than {MOST_FEATURES} features ({self.features})"
        if metric.inputs == "classifier" and self.classifier is None:
            return self.no_classifier
        return "" if set(metric.levels) & set(self.levels) else "no label map that merges classes"


def _fit_classifier(
    classifier: Classifier | None, level: ClassifierLevel | None, super_class: tuple[int, ...]
) -> tuple[Classifier | None, ClassifierLevel | None, str]:
    """A classifier, the level of its classes, and why it has none, or none but this one."""
    coarse, fine = max(super_class) + 1, len(super_class)
    if classifier is None:
        return None, None, NO_CLASSIFIER
    count = len(classifier.weights)
    wanted: dict[ClassifierLevel, int] = {"fine": fine, "coarse": coarse}
    fitting = [name for name in wanted if wanted[name] == count and level in (None, name)]
    if not fitting:
        known = [f"{wanted[name]} {name}" for name in ("coarse", "fine") if level in (None, name)]
        return None, None, f"the classifier has {count} classes, not {' or '.join(known) if coarse < fine else fine}"
    if fitting[0] == "coarse" and coarse == fine:  # the same classes, perhaps in another order
        order = np.asarray(super_class)
        return Classifier(classifier.weights[order], classifier.bias[order]), "fine", ""
    return classifier, fitting[0], f"the classifier has {count} classes"


def _reasons(task: _Task, test: Labelled | None) -> Iterator[str]:
    merges = task.coarse < task.fine
    if not merges:
        yield "coarse and within: no label map that merges classes"
    if test is None:
        yield "test: there is no test split"
    if any(metric.inputs == "classifier" for metric in task.metrics.values()):
        if task.level is None:
            yield f"nc3 and nc4: {task.no_classifier}"
        elif merges:
            yield f"nc3 and nc4, {'coarse' if task.level == 'fine' else 'fine'}: {task.no_classifier}"
    if task.features > MOST_FEATURES and any(metric.eigenvalues for metric in task.metrics.values()):
        yield f"vci and effective_rank: more than {MOST_FEATURES} features ({task.features})"


def _odd_classes(split: str, counts: Float[np.ndarray, "f"]) -> Iterator[str]:
    empty, single = np.flatnonzero(counts == 0).tolist(), np.flatnonzero(counts == 1).tolist()
    if empty:
        yield f"{split}: no example of class {_listed(empty)}; measured over the other classes"
    if single:
        yield f"{split}: one example of class {_listed(single)}: it has no spread, and a silhouette of 0"


def _undefined(task: _Task, measured: Sequence[Measurement]) -> Iterator[str]:
    """A line for the metrics of a level that are computed and have no value."""
    known = {(one.level, one.metric) for one in measured if one.value is not None}
    left_out: dict[tuple[str, str, str], list[str]] = {}
    for metric in task.computed:
        for one in measured:
            if (
                one.metric in metric.outputs
                and (one.level, one.metric) not in known
                and one.reason != task.no_classifier
            ):
                names = left_out.setdefault((one.split, one.level, one.reason), [])
                names += [] if one.metric in names else [one.metric]
    for (split, level, reason), names in left_out.items():
        yield f"{split}, {level}: {', '.join(names)}: {reason}"


def _listed(numbers: list[int], most: int = 5) -> str:
    return ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} others" if len(numbers) > most else "")


# ------------------------------------------------------------------ one split


class _Split(NamedTuple):
    levels: dict[str, Results]
    class_distances: Float[np.ndarray, "f f"]  # in units of the features
    total: float  # 0 where all features are the same
    counts: Float[np.ndarray, "f"]
    means: ClassStatistics  # at the level of the classifier


def _measure_split(task: _Task, data: Labelled, means: ClassStatistics | None) -> _Split:
    """Dispatches every program before it reads a result: eigenvalues occupy one core while blocks are read.

    Args:
        task: what is measured.
        data: the split.
        means: class statistics that NC4 compares with; none: those of this split.
    """
    owner = jnp.asarray(task.super_class, jnp.int32)
    moments = gather_moments(data, task.fine, task.mesh)
    fine, coarse = moments.fine, merge_classes(moments.fine, owner, task.coarse)
    each, whole = task.functions("statistics"), task.functions("all")
    of_each, of_whole, distances, total = _evaluate_levels(fine, owner, each, whole)
    own = coarse if task.level == "coarse" else fine
    beside = {"super_classes": (moments, owner), "classifier": (own if means is None else means, task.classifier)}
    sums = _sum_over_blocks(data, task.mesh, {m.function: (m.sums, beside[m.inputs]) for m in task.computed if m.sums})

    def evaluate(inputs: Inputs, *arrays: PyTree) -> Results:
        functions = task.functions(inputs)
        found = _evaluate(functions, arrays, tuple(sums.get(function) for function in functions)) if functions else ()
        return dict(zip(functions, found, strict=True))

    levels: dict[str, Results] = {"coarse": {}, "fine": {}, "all": dict(zip(whole, of_whole, strict=True))}
    levels["within"] = evaluate("super_classes", fine, coarse, owner)
    if task.functions("subsample"):
        sample = subsample(data, np.asarray(task.super_class)[data.fine], task.coarse, task.mesh)
        levels["within"] |= evaluate("subsample", sample, coarse.counts)
    if task.classifier is not None and task.level is not None:
        levels[task.level] |= evaluate("classifier", own, task.classifier.weights)
    for i, level in enumerate(("fine", "coarse")):
        levels[level] |= zip(each, jax.tree.map(itemgetter(i), of_each), strict=True)
    levels = {level: dict(zip(found, to_host(tuple(found.values())), strict=True)) for level, found in levels.items()}
    squared = np.asarray(distances, np.float64) * frame_of(data.rows).scale ** 2
    return _Split(levels, squared, float(total), np.asarray(fine.counts), own)


@partial(jax.jit, static_argnames=("each", "whole"))
def _evaluate_levels(
    fine: ClassStatistics, super_class: Int32[Array, "f"], each: tuple[Function, ...], whole: tuple[Function, ...]
) -> tuple[PyTree, PyTree, Float[Array, "f f"], Float[Array, ""]]:
    """Functions of the fine and of the coarse classes, stacked; of the fine ones alone; class distances; a total."""
    coarse = merge_classes(fine, super_class, fine.counts.size)  # padded with empty classes: one program for both
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), fine, coarse)
    of_each = jax.lax.map(lambda statistics: tuple(function(statistics) for function in each), both)
    distances = class_distances(fine)
    total = jnp.trace(fine.scatter) + distances.max()
    return of_each, tuple(function(fine) for function in whole), distances, total


@partial(jax.jit, static_argnames="functions")
def _evaluate(functions: tuple[Function, ...], arrays: tuple[PyTree, ...], sums: tuple[PyTree, ...]) -> PyTree:
    """One program for all metrics of the same inputs."""
    return tuple(
        function(*arrays) if total is None else function(total, *arrays)
        for function, total in zip(functions, sums, strict=True)
    )


def _sum_over_blocks(
    data: Labelled, mesh: Mesh | None, readings: Mapping[Function, tuple[Function, tuple[PyTree, ...]]]
) -> Results:
    """By metric: the sum over blocks of a function of the block and of other arrays; one pass over the examples."""
    if not readings:
        return {}
    parts = [tuple(sums(block, *arrays) for sums, arrays in readings.values()) for block in blocks(data, mesh)]
    found = jax.tree.map(lambda *leaves: sum(map(to_host, leaves)), *parts)
    return dict(zip(readings, found, strict=True))


def _measurements(task: _Task, split: str, found: _Split, scale: float) -> Iterator[Measurement]:
    for level in task.levels:
        undefined = _why_undefined(task, level, found)
        for metric in task.metrics.values():
            for name in metric.outputs if level in metric.levels else ():
                make = partial(_measurement, name, split, level)
                if metric.function not in found.levels[level]:
                    yield make(None, reason=task.reason(metric) or task.no_classifier)
                    continue
                result = found.levels[level][metric.function]
                value = np.asarray(getattr(result, name) if isinstance(result, tuple) else result, np.float64)
                value = value * scale**metric.power if found.total > 0 else np.full_like(value, np.nan)
                if value.ndim == 0:
                    yield make(value, reason=undefined)
                else:  # coarse classes are padded to as many as there are fine ones
                    counted = value[: task.coarse if level == "coarse" else None]
                    yield from (make(x, i, undefined) for i, x in enumerate(counted))


def _why_undefined(task: _Task, level: str, found: _Split) -> str:
    """Why some metrics of a level are NaN."""
    owner, present = np.asarray(task.super_class), found.counts > 0
    classes = owner[present] if level == "coarse" else np.flatnonzero(present)
    if not found.total > 0:
        return CONSTANT
    if level in ("coarse", "fine") and len(set(classes.tolist())) < 2:
        return "fewer than two classes have examples"
    if level == "within" and np.bincount(owner[present]).max() < 2:
        return "no super-class has two classes with examples"
    return UNDEFINED if found.counts.max() > 1 else "no class has two examples"


def _measurement(
    metric: str,
    split: str,
    level: str,
    value: Shaped[np.ndarray, ""] | np.generic | None,
    index: int | None = None,
    reason: str = "",
) -> Measurement:
    number = float(value) if value is not None and np.isfinite(value) else None
    return Measurement(
        metric=metric, split=split, level=level, value=number, index=index, reason="" if number is not None else reason
    )
