# SPDX-License-Identifier: Apache-2.0
"""Members that differ only by their seed make one line of a table: mean, spread and how many."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

VARIANTS = {
    "raw": "raw features",
    "normalised": "centred, normalised",
    "residual_pca": "residual PCA",
    "tsne": "t-SNE",
}
KINDS = {
    "trained": "trained on coarse labels",
    "fine": "trained on fine labels",
    "shuffled": "trained on shuffled labels",
    "random_init": "random initialisation",
    "raw_pixels": "raw pixels",
}
MISSING = "–"
PER_CENT = "\u00a0%"
UNTRAINED = ("random_init", "raw_pixels")


class Group(NamedTuple):
    """Rows of `evaluation.json` that share everything but the seed."""

    kind: str
    label_map: str
    lr: float | None
    weight_decay: float | None
    epoch: float | None
    rows: tuple[dict[str, Any], ...]

    def values(self, *path: str) -> tuple[float, ...]:
        """The finite numbers found under a path of keys, one a row at most."""
        found = (_dig(row, path) for row in self.rows)
        return tuple(float(value) for value in found if value is not None and math.isfinite(value))

    def mean(self, *path: str) -> float | None:
        """The mean of `values`, or None where there is none."""
        values = self.values(*path)
        return statistics.fmean(values) if values else None


def _dig(row: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = row
    for key in path:
        value = (value or {}).get(key)
    return value


def group_rows(rows: Sequence[dict[str, Any]]) -> tuple[Group, ...]:
    """Gathers rows over seeds; trained networks come first, then the controls, then by epoch."""
    gathered: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        untrained = row["kind"] in UNTRAINED
        setting = (None, None) if untrained else (row.get("lr"), row.get("weight_decay"))
        key = (row["kind"], row.get("label_map") or row.get("name") or "", *setting, row.get("epoch"))
        gathered.setdefault(key, []).append(row)
    groups = [Group._make((*key, tuple(members))) for key, members in gathered.items()]
    order = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(groups, key=lambda group: order.get(group.kind, len(order))))


def last_epochs(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The latest epoch of each setting."""
    latest: dict[tuple[Any, ...], Group] = {}
    for group in groups:
        key = group[:4]
        if key not in latest or (group.epoch or 0) >= (latest[key].epoch or 0):
            latest[key] = group
    return tuple(latest.values())


def labels_of(groups: Sequence[Group]) -> tuple[str, ...]:
    """A name for each group; learning rate and weight decay are said where the groups differ in them."""
    several = len({group[2:4] for group in groups if group.kind not in UNTRAINED}) > 1
    return tuple(_label(group, several) for group in groups)


def _label(group: Group, several: bool) -> str:
    setting = f", lr {group.lr:g}, wd {group.weight_decay:g}" if several and None not in group[2:4] else ""
    return f"{group.label_map}{setting}"


def variants_of(groups: Sequence[Group]) -> tuple[str, ...]:
    """The variants of k-means that any group has a score for: the known ones in order, then others."""
    scores = [row.get("clp") or {} for group in groups for row in group.rows]
    present = {name for by_variant in scores for name in by_variant if by_variant[name]}
    return (*(name for name in VARIANTS if name in present), *sorted(present - VARIANTS.keys()))


def percent(values: Sequence[float]) -> str:
    """`84.4 ± 0.3`: mean and sample standard deviation in per cent, or a dash."""
    return _spread([100 * value for value in values], ".1f")


def index(values: Sequence[float]) -> str:
    """A score such as ARI, mean and sample standard deviation to three decimals, or a dash."""
    return _spread(values, ".3f")


def number(values: Sequence[float]) -> str:
    """A quantity of any size to three digits, its sample standard deviation to two, or a dash."""
    return _spread(values, ".3g", ".2g")


def _spread(values: Sequence[float], form: str, spread_form: str = "") -> str:
    if not values:
        return MISSING
    mean = f"{statistics.fmean(values):{form}}"
    return f"{mean} ± {statistics.stdev(values):{spread_form or form}}" if len(values) > 1 else mean


def main_group(groups: Sequence[Group]) -> Group | None:
    """The setting that the headline is about: best on the coarse test labels, the only ones training knows of."""
    trained = [group for group in groups if group.kind == "trained"]
    return max(trained, key=lambda group: group.mean("coarse_test_accuracy") or 0.0, default=None)


def headline(lead: Group, groups: Sequence[Group], variants: Sequence[str]) -> str:
    """CLP against its ceiling and its controls, in words; `variants` are those that have a score."""
    scores = {name: lead.mean("clp", name, "test_accuracy") for name in variants}
    known = {name: score for name, score in scores.items() if score is not None}
    ceiling = lead.mean("probe_test_accuracy")
    if not known or ceiling is None:
        return f"Trained on {lead.label_map}; cluster-and-linear-probe or its ceiling was not measured."
    best = max(known, key=lambda name: known[name])
    raw = f"; {100 * known['raw']:.1f}{PER_CENT} on raw features" if best != "raw" and "raw" in known else ""
    choice = f"k-means on {VARIANTS.get(best, best)}" + (f", best of {len(known)} ways" if len(known) > 1 else "") + raw
    gap = 100 * (ceiling - known[best])
    return (
        f"From a network that saw only the labels {lead.label_map}, clustering and a linear probe recover the fine "
        f"classes at {100 * known[best]:.1f}{PER_CENT} on the test set ({choice}): {abs(gap):.1f} points "
        f"{'below' if gap >= 0 else 'above'} the {100 * ceiling:.1f}{PER_CENT} of a probe with the true labels."
        + _controls(lead, groups, best)
    )


def _controls(lead: Group, groups: Sequence[Group], variant: str) -> str:
    """The same variant without training, and on pixels: what training itself adds."""
    said = []
    for kind in UNTRAINED:
        same_kind = [group for group in groups if group.kind == kind]
        same_kind.sort(key=lambda group: group.label_map != lead.label_map)
        control = same_kind[0] if same_kind else None
        score = control.mean("clp", variant, "test_accuracy") if control else None
        if score is not None:
            said.append(f"{KINDS[kind]} {100 * score:.1f}{PER_CENT}")
    return f" Without training, the same way: {', '.join(said)}." if said else ""
