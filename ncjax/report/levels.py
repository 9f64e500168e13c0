# SPDX-License-Identifier: Apache-2.0
"""Which metrics of collapse have a column in tables: those with a short title, in the order of `Evaluation.metrics`."""

from collections.abc import Mapping
from typing import NamedTuple

from ncjax.results import MetricInfo, Scope

LEVELS = ("coarse", "fine")


class Column(NamedTuple):
    """A metric: its short title, and what it is in full."""

    metric: str
    title: str
    hint: str


def columns_of(metrics: Mapping[str, MetricInfo], scope: Scope) -> tuple[Column, ...]:
    """Returns the metrics of a scope that have a column."""
    chosen = {name: info for name, info in metrics.items() if info.scope == scope and info.short}
    return tuple(Column(name, info.short, hint(info)) for name, info in chosen.items())


def hint(info: MetricInfo) -> str:
    """Returns a metric in full: `NC4: nearest mean and classifier differ; 0 to 1, lower is better`."""
    match (info.low, info.high):
        case (None, None):
            bounds = ""
        case (low, None):
            bounds = f"{low:g} or more"
        case (None, high):
            bounds = f"{high:g} or less"
        case (low, high):
            bounds = f"{low:g} to {high:g}"
    facts = ", ".join(fact for fact in (bounds, f"{info.better} is better" if info.better else "") if fact)
    return f"{info.label}; {facts}" if facts else info.label
