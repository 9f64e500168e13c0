# SPDX-License-Identifier: Apache-2.0
"""The tables of a comparison with PyTorch, from results/comparison.json."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from ncjax.report.groups import MISSING, VARIANTS, Group, group_rows, labels_of, number, percent, variants_of

SIDES = ("ncjax", "PyTorch")


class Table(NamedTuple):
    """A title, a head and lines, all of them text."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def comparison_tables(comparison: dict[str, Any]) -> tuple[Table, ...]:
    """Cost, ways of running PyTorch, and what the networks learnt, side by side."""
    return _cost(comparison), _ways(comparison), _quality(comparison)


def _cost(comparison: dict[str, Any]) -> Table:
    speeds = [comparison["speed"][name] for name in ("ncjax", comparison["torch_chosen"])]
    secs = comparison["time_to_accuracy"]["secs"]
    lines = [
        ("images/s, median (min to max)", [_rates(s) for s in speeds], [_median(s) for s in speeds]),
        *(
            (what, [f"{value:.4g}" for value in values], values)
            for what, values in (
                ("secs of steps until every member is as good as both sides end", [secs[side] for side in SIDES]),
                ("peak memory without the libraries, MiB", [s["peak_mib"] for s in speeds]),
                ("secs until ready (data, compilation, a first second of steps)", [s["setup_secs"] for s in speeds]),
            )
        ),
    ]
    head = ("", "ncjax", f"PyTorch ({comparison['torch_chosen']})", "ncjax / PyTorch")
    return Table(
        f"Cost of {comparison['members']} members, {comparison['epochs']} of {comparison['asked_epochs']} epochs",
        head,
        tuple((what, *texts, f"{a / b:.2f}" if b else MISSING) for what, texts, (a, b) in lines),
    )


def _ways(comparison: dict[str, Any]) -> Table:
    lines = [
        (name, _rates(speed), f"{speed['setup_secs']:.1f}")
        if speed["images_per_sec"]
        else (name, speed["error"], MISSING)
        for name, speed in comparison["speed"].items()
    ]
    return Table(
        "Images per second of every way that was tried", ("", "median (min to max)", "secs to ready"), tuple(lines)
    )


def _quality(comparison: dict[str, Any]) -> Table:
    sides = [group_rows(comparison["rows"][side]) for side in SIDES]
    variants = variants_of(sides[0])
    columns: list[tuple[str, tuple[str, ...]]] = [
        ("coarse test", ("coarse_test_accuracy",)),
        ("true-label probe", ("probe_test_accuracy",)),
        *((f"CLP: {VARIANTS.get(name, name)}", ("clp", name, "test_accuracy")) for name in variants),
    ]
    collapse = [("NC1 coarse", ("nc1_coarse_train",)), ("NC1 fine", ("nc1_fine_train",))]
    lines = []
    for ours, theirs, label in zip(*sides, labels_of(sides[0]), strict=True):
        for side, group in zip(SIDES, (ours, theirs), strict=True):
            cells = [percent(group.values(*path)) for _, path in columns]
            cells += [number(group.values(*path)) for _, path in collapse]
            lines.append((label, side, str(len(group.rows)), *cells))
        differences = [percent(_differences(ours, theirs, path)) for _, path in columns]
        differences += [number(_differences(ours, theirs, path)) for _, path in collapse]
        lines.append((label, "difference, seed by seed", str(len(ours.rows)), *differences))
    head = ("trained on", "", "seeds", *(name for name, _ in columns + collapse))
    return Table("Accuracies in per cent, mean ± standard deviation over seeds", head, tuple(lines))


def _differences(ours: Group, theirs: Group, path: tuple[str, ...]) -> tuple[float, ...]:
    pairs = zip(ours.values(*path), theirs.values(*path), strict=False)
    return tuple(a - b for a, b in pairs)


def _median(speed: dict[str, Any]) -> float:
    return statistics.median(speed["images_per_sec"])


def _rates(speed: dict[str, Any]) -> str:
    values: Sequence[float] = speed["images_per_sec"]
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"
