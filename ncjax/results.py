# SPDX-License-Identifier: Apache-2.0
"""The typed results of an evaluation, and their one JSON form."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ncjax.errors import UserError
from ncjax.typed_json import register, structure, unstructure

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2  # of the JSON form; files without one were written by ncjax 0.1

Scope = Literal["level", "within", "all", "accuracy", "probe", "clp"]


class Event(NamedTuple):
    """What a stage is doing: `done` of `total` parts, the newest of which is `name`."""

    stage: str
    done: int
    total: int
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """How a metric is shown."""

    label: str  # in full, with its formula where that is short
    scope: Scope  # level: coarse and fine labels; within: fine classes inside super-classes; all: all examples
    short: str = ""  # for the columns of the page; empty: not among them
    low: float | None = None  # the least value; None: no bound
    high: float | None = None
    better: Literal["lower", "higher", ""] = ""


@dataclass(frozen=True, kw_only=True)
class ViewInfo:
    """How a view of the features is shown."""

    label: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number of one network.

    Attributes:
        metric: name in `Evaluation.metrics`.
        split: train or test.
        level: the labels that it is about: coarse, fine, within (fine inside super-classes) or all (no labels).
        value: None where the metric is undefined; then `reason` says why.
        std: standard deviation over resamples of the examples, or of what the metric itself draws.
        view: the view of the features that was clustered, for metrics of clusters.
        index: place in a metric of several numbers, such as a spectrum.
    """

    metric: str
    split: str
    level: str
    value: float | None
    std: float | None = None
    view: str | None = None
    index: int | None = None
    reason: str = ""


Key = tuple[str, str, str, str | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network, or one control, at one epoch and layer, with everything that was measured of it.

    Attributes:
        name: of the member, such as `mod:5/lr=0.1/wd=0.0005/seed=0`, or of the control or file.
        kind: trained (on labels that merge classes), fine, split, shuffled, random_init, raw_pixels or features.
        member: its number in the run; None for controls and for features from elsewhere.
        layer: of the network that the features are of.
        super_class: coarse label of each fine class that coarse measurements are about; empty: none.
        class_distances: mean squared distance between examples of two fine classes, training split `[f f]`.
        left_out: lines that say what is missing, and why.
        bootstrap: resamples behind `std` of the measures of collapse; 0: none.

    Raises:
        UserError: class distances are not square.
    """

    name: str
    kind: str
    member: int | None = None
    label_map: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    seed: int | None = None
    epoch: int | None = None
    layer: str = "features"
    super_class: tuple[int, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    class_distances: tuple[tuple[float, ...], ...] = ()
    left_out: tuple[str, ...] = ()
    bootstrap: int = 0

    def __post_init__(self) -> None:
        if any(len(line) != len(self.class_distances) for line in self.class_distances):
            raise UserError(f"class_distances of {self.name} must be a square of numbers, a line a class")

    @cached_property
    def _by_key(self) -> dict[Key, Measurement]:
        return {(m.metric, m.split, m.level, m.view, m.index): m for m in self.measurements}

    def find(
        self,
        metric: str,
        *,
        split: str = "test",
        level: str = "fine",
        view: str | None = None,
        index: int | None = None,
    ) -> Measurement | None:
        """The measurement of this name, None where there is none."""
        return self._by_key.get((metric, split, level, view, index))

    def value(
        self,
        metric: str,
        *,
        split: str = "test",
        level: str = "fine",
        view: str | None = None,
        index: int | None = None,
    ) -> float | None:
        """The value of a measurement, None where it is undefined or was not measured."""
        found = self.find(metric, split=split, level=level, view=view, index=index)
        return None if found is None else found.value


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Reconstructed labels in one view, for every row `s` of an evaluation; -1 where there is none.

    Attributes:
        train: cluster of each training example.
        test: cluster of each test example: the nearest centroid in its super-class; None where the view cannot embed
            new points.
        super_class: coarse label of each cluster; they are numbered over all super-classes, `k` at most in a row.
        matching: the fine class that each cluster stands for (Hungarian method on the training split).
        embedding: where the training examples lie, for views that embed them in a plane; NaN for those that only vote.
    """

    train: Int[np.ndarray, "s n"]
    test: Int[np.ndarray, "s m"] | None
    super_class: Int[np.ndarray, "s k"]
    matching: Int[np.ndarray, "s k"]
    embedding: Float[np.ndarray, "s n p"] | None = None

    @property
    def recovered_train(self) -> Int[np.ndarray, "s n"]:
        """The fine class that each training example's cluster stands for; -1 where there is none."""
        return _matched(self.matching, self.train)

    @property
    def recovered_test(self) -> Int[np.ndarray, "s m"] | None:
        """The same of the test split."""
        return None if self.test is None else _matched(self.matching, self.test)


def _matched(matching: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    found = np.take_along_axis(matching, np.maximum(clusters, 0), axis=1)
    return np.where(clusters >= 0, found, -1)


@dataclass(frozen=True, kw_only=True)
class SeparationFit:
    """`log D_l = intercept + slope * l` over the layers of one network, at one split and level."""

    name: str
    split: str
    level: str
    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a result needs beside it to be made again.

    Attributes:
        versions: of Python and of the packages that decide numbers.
        commit: `git describe` of the source code, with `-dirty` where it was changed; None: installed without git.
        device: number and kind of the devices of all processes, and the CPU cores of this machine.
    """

    versions: Mapping[str, str]
    commit: str | None
    device: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where results come from: enough to make them again."""

    name: str = ""
    dataset: str = ""
    class_names: tuple[str, ...] = ()
    command: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    device: str = ""
    wall_secs: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """How the training of a run went: results/training.json."""

    compile_secs: float | None
    train_secs: float | None
    failures: tuple[str, ...] = ()  # members whose loss or gradient was not finite
    imported: tuple[str, ...] = ()  # members whose weights came from files
    mean: tuple[float, ...] = ()  # channel means that their images were normalised with, full scale = 1
    std: tuple[float, ...] = ()  # the same for standard deviations
    data: tuple[str, ...] = ()  # what was skipped, turned or split off while the images were read
    arithmetic: str = ""  # of products and convolutions, by jax.lax.DotAlgorithmPreset; empty: by an earlier version


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images per second of one way to train."""

    images_per_sec: tuple[float, ...]  # one a round; none where it failed
    setup_secs: float
    peak_mib: float
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class TimeToAccuracy:
    """When every member is as good as both sides end up; by side."""

    accuracy: tuple[float, ...]  # of each member
    epochs: Mapping[str, tuple[int, ...]]
    secs: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One experiment with ncjax and with PyTorch: results/comparison.json."""

    members: int
    images_per_epoch: int
    asked_epochs: int
    epochs: int
    budget_minutes: float
    torch_options: Mapping[str, Any]  # of ncjax.torch_port.step.TorchOptions
    torch_chosen: str
    speed: Mapping[str, Speed]
    time_to_accuracy: TimeToAccuracy | None = None  # None: not trained yet
    rows: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)  # of the last epoch, by side
    left_out: tuple[str, ...] = ()  # what the budget did not reach
    provenance: Provenance = Provenance()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that `ncjax.evaluate` found.

    Attributes:
        rows: one for each network, epoch and layer.
        metrics: how each metric is shown, by name; in the order of the tables.
        views: how each view is shown, by name.
        separation: the law of separation, where rows are several layers of one network.
        notes: lines about all rows.
        provenance: filled in for runs and files.
        clusters: reconstructed labels by view; not part of the JSON form.

    Example:
        >>> one = Measurement(metric="nc1", split="train", level="coarse", value=0.02)
        >>> found = Evaluation(rows=(Row(name="mine", kind="features", measurements=(one,)),))
        >>> found.rows[0].value("nc1", split="train", level="coarse")
        0.02
        >>> Evaluation.from_json(found.to_json()) == found
        True
    """

    rows: tuple[Row, ...]
    metrics: Mapping[str, MetricInfo] = field(default_factory=dict)
    views: Mapping[str, ViewInfo] = field(default_factory=dict)
    separation: tuple[SeparationFit, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Provenance = Provenance()
    clusters: Mapping[str, Clusters] = field(default_factory=dict, compare=False)

    def to_json(self) -> str:
        """JSON with the version of its schema; `Evaluation.from_json` is the inverse, but for `clusters`."""
        return json.dumps({"schema": SCHEMA, **unstructure(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "evaluation") -> "Evaluation":
        """Read what `to_json` wrote.

        Args:
            text: the JSON.
            where: for messages, such as the path of the file.

        Raises:
            UserError: it is no JSON, of another version, or a field is missing or of another type.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not valid JSON ({error}): run `ncjax evaluate` again") from error
        found = content.pop("schema", 1) if isinstance(content, dict) else None
        if found != SCHEMA:
            made = "by an earlier version of ncjax" if found == 1 else "by another version of ncjax, or something else"
            raise UserError(f"{where} was written {made}: run `ncjax evaluate` again, which keeps the features")
        return structure(cls, content, f"{where} does not fit; run `ncjax evaluate` again")

    def to_pandas(self) -> "pd.DataFrame":
        """One line a measurement: member, what it was trained with, epoch, layer, split, level, view, metric, value.

        Needs pandas.
        """
        import pandas as pd

        names = ("label_map", "lr", "weight_decay", "seed", "epoch", "layer", "kind")
        lines = [
            {"member": row.name, **{name: getattr(row, name) for name in names}, **dataclasses.asdict(one)}
            for row in self.rows
            for one in row.measurements
        ]
        own = ("split", "level", "view", "metric", "index", "value", "std", "reason")
        return pd.DataFrame(lines, columns=["member", *names, *own])


def join(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The rows of several evaluations one behind the other; those without clusters in a view have -1 there.

    Raises:
        UserError: reconstructed labels are of different examples.
    """
    names = dict.fromkeys(name for one in evaluations for name in one.clusters)
    return Evaluation(
        rows=tuple(row for one in evaluations for row in one.rows),
        metrics={name: info for one in evaluations for name, info in one.metrics.items()},
        views={name: info for one in evaluations for name, info in one.views.items()},
        separation=tuple(fit for one in evaluations for fit in one.separation),
        notes=tuple(dict.fromkeys(note for one in evaluations for note in one.notes)),
        provenance=next((one.provenance for one in evaluations if one.provenance != Provenance()), Provenance()),
        clusters={
            name: stack_clusters([(one.clusters.get(name), len(one.rows)) for one in evaluations]) for name in names
        },
    )


def stack_clusters(parts: Sequence[tuple[Clusters | None, int]]) -> Clusters:
    """Clusters of some rows behind those of others; None stands for so many rows without."""
    present = [part for part, _ in parts if part is not None]
    sizes = {tuple(x.shape[1] for x in (part.train, part.test) if x is not None) for part in present}
    if len({size[:1] for size in sizes}) > 1 or len({size for size in sizes if len(size) == 2}) > 1:
        raise UserError("results of different examples cannot be joined; evaluate them one by one")
    widest = max(part.matching.shape[1] for part in present)

    def stacked(name: str, fill: Any) -> Any:
        arrays = [getattr(part, name) if part is not None else None for part, _ in parts]
        known = [array for array in arrays if array is not None]
        if not known:
            return None
        shape = (widest,) if name in ("super_class", "matching") else known[0].shape[1:]
        rows = []
        for array, (_, count) in zip(arrays, parts, strict=True):
            whole = np.full((count, *shape), fill, known[0].dtype)
            if array is not None:
                whole[:, : array.shape[1]] = array
            rows.append(whole)
        return np.concatenate(rows)

    return Clusters(
        train=stacked("train", -1),
        test=stacked("test", -1),
        super_class=stacked("super_class", -1),
        matching=stacked("matching", -1),
        embedding=stacked("embedding", np.nan),
    )


register(Measurement, omit_defaults=True)
register(Evaluation, leave_out=("clusters",))
