# SPDX-License-Identifier: Apache-2.0
"""Measures the metrics of `METRICS` on features: both splits, coarse and fine classes, and why a value is missing.

Networks of the same shapes go through the same two programs together (`ncjax.collapse.programs`). Features that are too
large for that are read twice, a block at a time: for moments, then for what needs each example beside them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree, Shaped

from ncjax.collapse import programs
from ncjax.collapse.plan import CONSTANT, NO_CLASSIFIER, ClassifierLevel, Plan, make_plan
from ncjax.collapse.programs import Draw, Evaluated, Network, Read
from ncjax.collapse.reading import SUBSAMPLE, Classifier, Labelled, all_blocks, sample_rows
from ncjax.collapse.resamples import resample, with_deviations
from ncjax.collapse.streamed import read_draws
from ncjax.collapse.units import unit_origin
from ncjax.distributed.processes import to_host
from ncjax.results import Measurement
from ncjax.storage.arrays import frame_of

RESIDENT_BYTES = 2**30  # at most, of features and moments that go through a program together
RESIDENT_SHARE = 1 / 4  # of the memory: the same
DRAW_COPIES = 4  # of the moments of a draw that a stream holds
CLASS_ARRAYS = 3  # of moments: means, squares, means of unit vectors


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A network that is measured.

    Attributes:
        train: fine labels in `0..f-1`, of which a class may have no example; NC4 uses the class means of this split.
        test: none: left out; its rows have the frame of the training split.
        super_class: coarse label of each fine class; where it merges none, the fine level is measured alone.
        classifier: of rows in their frame, with as many classes as there are coarse or fine labels; none: NC3 and NC4
            have no value.
        classifier_level: the labels that its classes are; none: decided by the number of its classes.
        no_classifier: why there is none, for NC3 and NC4.
        resamples: of the examples, for standard deviations; 0: none.
    """

    train: Labelled
    test: Labelled | None
    super_class: tuple[int, ...]
    classifier: Classifier | None = None
    classifier_level: ClassifierLevel | None = None
    no_classifier: str = NO_CLASSIFIER
    resamples: int = 0


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        measurements: in the order of splits, levels and metrics; one without value has a reason.
        class_distances: mean squared distance between examples of two fine classes, training split, in
            squared units of the features.
        test_distances: the same of the test split; None: there is none.
        left_out: lines that say what is missing, and why.
    """

    measurements: tuple[Measurement, ...]
    class_distances: Float[np.ndarray, "f f"]
    test_distances: Float[np.ndarray, "f f"] | None
    left_out: tuple[str, ...]


def measure(
    train: Labelled,
    test: Labelled | None,
    super_class: tuple[int, ...],
    *,
    metrics: Sequence[str] | None = None,
    **others: Any,
) -> Measured:
    """Measures one network: `measure_networks` of `Problem(train=train, ...)`."""
    (found,) = measure_networks([Problem(train=train, test=test, super_class=super_class, **others)], metrics=metrics)
    return found


def measure_networks(
    problems: Sequence[Problem],
    *,
    metrics: Sequence[str] | None = None,
    mesh: Mesh | None = None,
    tell: Callable[[int], None] = lambda count: None,
    memory_bytes: int | None = None,
) -> list[Measured]:
    """Measures networks, those of the same shapes together.

    Args:
        problems: the networks.
        metrics: names in `METRICS`; none: all.
        mesh: devices that examples are sharded over (`ncjax.distributed.mesh`); none: one device.
        tell: called with the number of networks that were measured since.
        memory_bytes: that may be taken; none: as much as is of use.

    Raises:
        UserError: a metric is unknown.
    """
    tasks = [_make_task(problem, metrics) for problem in problems]
    most = RESIDENT_BYTES if memory_bytes is None else min(RESIDENT_BYTES, int(RESIDENT_SHARE * memory_bytes))
    found: dict[int, list[Evaluated]] = {}
    for indices in _together(tasks, mesh, most):
        group = [tasks[i] for i in indices]
        in_memory = mesh is None and _bytes(group[0]) <= most
        found |= zip(indices, _evaluate(group) if in_memory else [_evaluate_stream(group[0], mesh, most)], strict=True)
        tell(len(group))
    return [_measured(task, found[i]) for i, task in enumerate(tasks)]


# ------------------------------------------------------------------ what programs get


class _Task(NamedTuple):
    plan: Plan
    splits: Mapping[str, Labelled]
    draws: Mapping[str, Sequence[Float[np.ndarray, "n"]]]  # how often each example counts; first as they are


def _make_task(problem: Problem, metrics: Sequence[str] | None) -> _Task:
    plan = make_plan(
        metrics,
        problem.super_class,
        problem.train.rows.shape[1],
        problem.classifier,
        problem.classifier_level,
        problem.no_classifier,
    )
    splits = {"train": problem.train} | ({} if problem.test is None else {"test": problem.test})
    draws, rng = {name: [split.counts] for name, split in splits.items()}, np.random.default_rng(0)
    for _ in range(problem.resamples):
        for name, split in splits.items():
            draws[name].append(resample(split, rng))
    return _Task(plan, splits, draws)


def _together(tasks: Sequence[_Task], mesh: Mesh | None, most: int) -> Iterator[list[int]]:
    """Networks that go through a program together: of the same shapes, and as many as fit."""
    alike: dict[object, list[int]] = {}
    for i, task in enumerate(tasks):
        alike.setdefault(_shapes(task) if mesh is None else i, []).append(i)
    for indices in alike.values():
        size = max(1, most // _bytes(tasks[indices[0]]))
        yield from (indices[first : first + size] for first in range(0, len(indices), size))


def _shapes(task: _Task) -> tuple[object, ...]:
    shapes = tuple((name, split.rows.shape) for name, split in task.splits.items())
    near = unit_origin(frame_of(task.splits["train"].rows)) is None
    return task.plan.functions, task.plan.fine, shapes, len(task.draws["train"]), near


def _bytes(task: _Task) -> int:
    """Of the features of a network and the moments of its draws."""
    splits = task.splits.values()
    features = 4 * task.plan.features * sum(split.rows.shape[0] for split in splits)
    return features + 2 * _moment_bytes(task) * len(task.draws["train"]) * len(splits)


def _moment_bytes(task: _Task) -> int:
    """Of one draw of one split: of a matrix of the features, and of a few numbers for each class and feature."""
    d = task.plan.features
    return 4 * d * d + 4 * CLASS_ARRAYS * d * task.plan.fine


def _evaluate(group: Sequence[_Task]) -> list[list[Evaluated]]:
    """Of each network: the draws of the training split, then those of the test split."""
    functions, beside = group[0].plan.functions, _stack([_beside(task) for task in group])
    reads: list[Read] = []
    for name in group[0].splits:
        blocks, draws = _stack([_blocks(task, name) for task in group])
        means = reads[0].moments.fine if reads and beside.classifier is not None else None
        reads.append(programs.read_networks(functions, blocks, beside, draws._replace(means=means)))
    found = to_host(programs.evaluate_networks(functions, reads, beside))
    places = [range(count) for count in found.total.shape]
    return [[jax.tree.map(itemgetter((i, r)), found) for r in places[1]] for i in places[0]]


def _stack(trees: Sequence[PyTree]) -> Any:
    """Arrays of NumPy with a leading axis, on the device."""
    return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))


def _beside(task: _Task) -> Any:
    towards = unit_origin(frame_of(task.splits["train"].rows))
    owner: Any = np.asarray(task.plan.super_class, np.int32)
    return jax.tree.map(np.asarray, Network(towards, owner, task.plan.classifier))


def _blocks(task: _Task, name: str) -> Any:
    """Blocks of a split, and its draws."""
    block, plan, counts = all_blocks(task.splits[name]), task.plan, np.stack(task.draws[name])
    padded = np.zeros((len(counts), block.fine.size), np.float32)
    padded[:, : counts.shape[1]] = counts
    rows = None
    if plan.functions.of("subsample"):
        coarse = np.asarray(plan.super_class)[task.splits[name].fine]
        size = min(SUBSAMPLE, block.fine.size)
        rows = np.stack([sample_rows(coarse, draw, plan.coarse, size) for draw in counts])
    return block, Draw(padded.reshape(-1, *block.fine.shape), rows, None)  # type: ignore[arg-type]


def _evaluate_stream(task: _Task, mesh: Mesh | None, most: int) -> list[Evaluated]:
    """The same for one network, a block at a time: two passes for as many draws as have moments that fit."""
    beside = jax.tree.map(jnp.asarray, _beside(task))
    alone = jax.tree.map(lambda leaf: leaf[None], beside)
    found: dict[str, list[Evaluated]] = {name: [] for name in task.splits}
    count = len(task.draws["train"])
    size = min(count, max(1, most // (DRAW_COPIES * _moment_bytes(task))))
    for first in range(0, count, size):
        reads: list[Read] = []
        for name, split in task.splits.items():
            means = reads[0].moments.fine if reads else None
            draws = np.stack(task.draws[name][first : first + size])
            reads.append(read_draws(task.plan, split, draws, means, beside, mesh))
        leading = [jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], read) for read in reads]
        evaluated = to_host(programs.evaluate_networks(task.plan.functions, leading, alone))
        for place in range(len(task.splits) * len(draws)):
            name = tuple(task.splits)[place // len(draws)]
            found[name].append(jax.tree.map(itemgetter((0, place)), evaluated))
    return [one for split in found.values() for one in split]


# ------------------------------------------------------------------ what is said of it


def _measured(task: _Task, found: Sequence[Evaluated]) -> Measured:
    """From the draws of each split, one split behind the other."""
    left_out, count = list(task.plan.left_out("test" in task.splits)), len(task.draws["train"])
    measurements: list[Measurement] = []
    for place, (name, split) in enumerate(task.splits.items()):
        draws = found[place * count : (place + 1) * count]
        scale = frame_of(split.rows).scale
        measured, *resamples = (tuple(_measurements(task.plan, name, draw, scale)) for draw in draws)
        left_out += _odd_classes(name, np.asarray(draws[0].counts))
        if not draws[0].total > 0:
            left_out.append(f"{name}: every measure: {CONSTANT}")
        left_out += _undefined(task.plan, measured) if draws[0].total > 0 else ()
        measurements += with_deviations(measured, resamples) if resamples else measured
    distances = {
        name: np.asarray(found[place * count].class_distances, np.float64) * frame_of(split.rows).scale ** 2
        for place, (name, split) in enumerate(task.splits.items())
    }
    return Measured(tuple(measurements), distances["train"], distances.get("test"), tuple(left_out))


def _odd_classes(split: str, counts: Float[np.ndarray, "f"]) -> Iterator[str]:
    empty, single = np.flatnonzero(counts == 0).tolist(), np.flatnonzero(counts == 1).tolist()
    if empty:
        yield f"{split}: no example of class {_listed(empty)}; measured over the other classes"
    if single:
        yield f"{split}: one example of class {_listed(single)}: it has no spread, and a silhouette of 0"


def _undefined(plan: Plan, measured: Sequence[Measurement]) -> Iterator[str]:
    """A line for the metrics of a level that are computed and have no value."""
    known = {(one.level, one.metric) for one in measured if one.value is not None}
    left_out: dict[tuple[str, str, str], list[str]] = {}
    for metric in plan.computed:
        for one in measured:
            if (
                one.metric in metric.outputs
                and (one.level, one.metric) not in known
                and one.reason != plan.no_classifier
            ):
                names = left_out.setdefault((one.split, one.level, one.reason), [])
                names += [] if one.metric in names else [one.metric]
    for (split, level, reason), names in left_out.items():
        yield f"{split}, {level}: {', '.join(names)}: {reason}"


def _listed(numbers: list[int], most: int = 5) -> str:
    return ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} others" if len(numbers) > most else "")


def _measurements(plan: Plan, split: str, found: Evaluated, scale: float) -> Iterator[Measurement]:
    results = programs.by_level(plan.functions, found)
    for level in plan.levels:
        undefined = plan.why_undefined(level, np.asarray(found.counts), float(found.total))
        for metric in plan.metrics.values():
            for name in metric.outputs if level in metric.levels else ():
                make = partial(_measurement, name, split, level)
                if metric.function not in results[level]:
                    yield make(None, reason=plan.reason(metric) or plan.no_classifier)
                    continue
                result = results[level][metric.function]
                value = np.asarray(getattr(result, name) if isinstance(result, tuple) else result, np.float64)
                value = value * scale**metric.power if found.total > 0 else np.full_like(value, np.nan)
                if value.ndim == 0:
                    yield make(value, reason=undefined)
                else:  # coarse classes are padded to as many as there are fine ones
                    counted = value[: plan.coarse if level == "coarse" else None]
                    yield from (make(x, i, undefined) for i, x in enumerate(counted))


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
