# SPDX-License-Identifier: Apache-2.0
"""Members that differ only by their seed make one line of a table: mean, spread and how many."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Literal, NamedTuple

from ncjax.results import Evaluation, Measurement, Row, ViewInfo

KINDS = {
    "trained": "trained on coarse labels",
    "fine": "trained on fine labels",
    "shuffled": "trained on shuffled labels",
    "random_init": "random initialisation",
    "raw_pixels": "raw pixels",
}
MISSING = "–"
PER_CENT = "\u00a0%"
PLAIN = (1e-6, 1e9)  # sizes of numbers that are written without an exponent
UNTRAINED = ("random_init", "raw_pixels")


@dataclass(frozen=True)
class Quantity:
    """What identifies one number of a row; see `ncjax.results.Measurement`."""

    metric: str
    split: str = "test"
    level: str = "fine"
    view: str | None = None
    index: int | None = None

    def find(self, row: Row) -> Measurement | None:
        """Returns the measurement of a row, None where there is none."""
        return row.find(self.metric, split=self.split, level=self.level, view=self.view, index=self.index)


class Spread(NamedTuple):
    """One number over the rows of a group.

    Attributes:
        mean: over the networks; None where none has the number.
        std: sample standard deviation over seeds, or what the row itself holds where there is one network.
        over: what `std` is over: seeds, or resamples of the examples of one network; empty: there is no `std`.
        networks: that have the number.
    """

    mean: float | None
    std: float | None
    over: Literal["seeds", "resamples", ""]
    networks: int


class Setting(NamedTuple):
    """What networks share that differ only by their seed; they are measured under the same super-classes."""

    kind: str
    label_map: str
    lr: float | None
    weight_decay: float | None
    layer: str
    super_class: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Rows of an evaluation that share everything but the seed."""

    setting: Setting
    epoch: int | None
    rows: tuple[Row, ...]

    @property
    def kind(self) -> str:
        """Of the networks: a name in `KINDS`, or another."""
        return self.setting.kind

    @property
    def label_map(self) -> str:
        """What the networks were trained on; of controls without training, what they are measured under."""
        return self.setting.label_map

    @property
    def layer(self) -> str:
        """Of the networks."""
        return self.setting.layer

    def values(self, quantity: Quantity) -> tuple[float, ...]:
        """Returns the finite values of a quantity, one a row at most."""
        return tuple(value for row in self.rows if (value := value_of(row, quantity)) is not None)

    def mean(self, quantity: Quantity) -> float | None:
        """Returns the mean of `values`, or None where there is none."""
        values = self.values(quantity)
        return statistics.fmean(values) if values else None

    def spread(self, quantity: Quantity) -> Spread:
        """Returns mean and standard deviation over seeds, else over resamples."""
        values, mean = self.values(quantity), self.mean(quantity)
        if len(values) > 1:
            return Spread(mean, statistics.stdev(values), "seeds", len(values))
        found = quantity.find(self.rows[0]) if len(self.rows) == 1 else None
        if mean is None or found is None or found.std is None:
            return Spread(mean, None, "", len(values))
        return Spread(mean, found.std, "resamples", 1)


class Summary(NamedTuple):
    """Every number of the rows that differ only by their seed."""

    group: Group
    spreads: Mapping[Quantity, Spread]


def value_of(row: Row, quantity: Quantity) -> float | None:
    """Returns a value of a row, None where it is missing or not finite."""
    found = quantity.find(row)
    return None if found is None or found.value is None or not math.isfinite(found.value) else found.value


def summarise(evaluation: Evaluation) -> tuple[Summary, ...]:
    """Returns mean and standard deviation of everything that was measured, over seeds, else over resamples."""
    summaries = []
    for group in group_rows(evaluation.rows):
        measured = [
            Quantity(m.metric, m.split, m.level, m.view, m.index) for row in group.rows for m in row.measurements
        ]
        summaries.append(Summary(group, {quantity: group.spread(quantity) for quantity in dict.fromkeys(measured)}))
    return tuple(summaries)


def group_rows(rows: Sequence[Row]) -> tuple[Group, ...]:
    """Returns rows gathered over seeds; trained networks come first, then the controls, then by epoch.

    Random initialisations of one seed are one network, whatever it would have been trained with; the first counts.
    """
    gathered: dict[tuple[Setting, int | None], list[Row]] = {}
    for row in rows:
        untrained = row.kind in UNTRAINED
        lr, weight_decay = (None, None) if untrained else (row.lr, row.weight_decay)
        name = row.label_map or (KINDS[row.kind] if untrained else row.name)
        setting = Setting(row.kind, name, lr, weight_decay, row.layer, row.super_class)
        group = gathered.setdefault((setting, row.epoch), [])
        if row.kind != "random_init" or row.seed not in [other.seed for other in group]:
            group.append(row)
    groups = [Group(setting, epoch, tuple(members)) for (setting, epoch), members in gathered.items()]
    order = {kind: number for number, kind in enumerate(KINDS)}
    return tuple(sorted(groups, key=lambda group: order.get(group.kind, len(order))))


def last_epochs(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Returns the latest epoch of each setting."""
    latest: dict[Setting, Group] = {}
    for group in groups:
        key = group.setting
        if key not in latest or (group.epoch or 0) >= (latest[key].epoch or 0):
            latest[key] = group
    return tuple(latest.values())


def labels_of(groups: Sequence[Group], *, members: bool = True) -> tuple[str, ...]:
    """Returns a name for each group: its label map, with what the groups differ in besides it and the epoch.

    Args:
        groups: to be told from each other.
        members: whether a group of a single member has the name of the member.
    """
    settings = [group.setting for group in groups]
    several = len({(one.lr, one.weight_decay) for one in settings if one.kind not in UNTRAINED}) > 1
    layers = len({one.layer for one in settings}) > 1
    maps = {kind: {one.label_map for one in settings if one.kind == kind} for kind in UNTRAINED}
    measured_under = Counter(one._replace(super_class=()) for one in dict.fromkeys(settings))
    map_names = {one.super_class: one.label_map for one in settings if one.kind in ("trained", *UNTRAINED)}

    def label(group: Group) -> str:
        one = group.setting
        if one.kind in UNTRAINED:
            return KINDS[one.kind] if len(maps[one.kind]) == 1 else one.label_map
        if members and len(group.rows) == 1 and group.rows[0].member is not None:
            return group.rows[0].name
        if not several or one.lr is None or one.weight_decay is None:
            return one.label_map
        return f"{one.label_map}, lr {one.lr:g}, wd {one.weight_decay:g}"

    def distinct(group: Group) -> str:
        one = group.setting
        alike = one.kind not in UNTRAINED and measured_under[one._replace(super_class=())] > 1
        under = f", under {map_names.get(one.super_class, list(one.super_class))}" if alike else ""
        return label(group) + under + (f", layer {one.layer}" if layers else "")

    return tuple(map(distinct, groups))


def views_of(groups: Sequence[Group], views: Mapping[str, ViewInfo]) -> dict[str, str]:
    """Returns the labels, by name, of the views that any group has a number for: known ones in order, then others."""
    measured = (m for group in groups for row in group.rows for m in row.measurements)
    present = {m.view for m in measured if m.view is not None and m.value is not None}
    known = {name: info.label for name, info in views.items() if name in present}
    return known | {name: name for name in sorted(present - known.keys())}


def significant(value: float, digits: int) -> str:
    """A number to so many significant digits; with an exponent only where it is very small or very large.

    Example:
        >>> significant(441.2, 3), significant(12.3, 1), significant(1234567, 3), significant(2.2e-5, 1)
        ('441', '10', '1230000', '0.00002')
    """
    text = f"{value:.{digits}g}"
    return f"{Decimal(text):f}" if value == 0 or PLAIN[0] <= abs(value) < PLAIN[1] else text


def percent(values: Sequence[float]) -> str:
    """`84.4 ± 0.3`: mean and sample standard deviation in per cent, or a dash."""
    return _spread([100 * value for value in values], "{:.1f}".format)


def score(values: Sequence[float]) -> str:
    """A score such as ARI, mean and sample standard deviation to three decimals, or a dash."""
    return _spread(values, "{:.3f}".format)


def number(values: Sequence[float]) -> str:
    """A quantity of any size to three digits, its sample standard deviation to two, or a dash."""
    return _spread(values, partial(significant, digits=3), partial(significant, digits=2))


Form = Callable[[float], str]


def _spread(values: Sequence[float], form: Form, spread_form: Form | None = None) -> str:
    if not values:
        return MISSING
    mean = form(statistics.fmean(values))
    return f"{mean} ± {(spread_form or form)(statistics.stdev(values))}" if len(values) > 1 else mean
