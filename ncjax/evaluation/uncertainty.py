# SPDX-License-Identifier: Apache-2.0
"""How much measures vary: over seeds, or over resamples of the examples where there is one network."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ncjax.collapse.measure import Classifier, Labelled
from ncjax.evaluation.old_table import collapse_table

SAME = ("kind", "name", "label_map", "lr", "weight_decay", "epoch")  # of rows that differ only by their seed
ACCURACIES = ("coarse_train_accuracy", "coarse_test_accuracy", "probe_train_accuracy", "probe_test_accuracy")


def bootstrap(
    train: Labelled,
    test: Labelled | None,
    super_class: tuple[int, ...],
    classifier: Classifier | None,
    resamples: int,
) -> dict[str, Any]:
    """Standard deviation of every measure of `collapse_table` over resamples of the examples (Efron 1979).

    Each resample draws as many examples of each fine class as there are, with replacement, and is measured as a whole.
    It says how much the examples matter, not how much another training would change.
    """
    rng = np.random.default_rng(0)
    tables = [
        collapse_table(
            _resample(train, rng), None if test is None else _resample(test, rng), super_class, classifier
        ).values
        for _ in range(resamples)
    ]
    return deviations(tables)


def _resample(data: Labelled, rng: np.random.Generator) -> Labelled:
    weights = np.zeros(len(data.fine), np.float32)
    for label in np.unique(data.fine):
        rows = np.flatnonzero((data.fine == label) & (data.counts > 0))
        weights[rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows))) if len(rows) else 0
    return data._replace(weights=weights)


def summarise_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of accuracies, CLP and collapse over the rows that differ only by their seed.

    Returns:
        One a setting: what its rows share, `networks`, `mean`, `std` (of a sample) and what it is `over`: `seeds`, or
        `resamples` of the examples where there is one network; then only measures of collapse have one.
    """
    gathered: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        gathered.setdefault(tuple(row.get(name) for name in SAME), []).append(row)
    summaries = []
    for key, group in gathered.items():
        tables = [{name: row.get(name) for name in (*ACCURACIES, "clp", "collapse")} for row in group]
        spread, over = deviations(tables), "seeds" if len(group) > 1 else None
        if over is None and group[0].get("collapse_std"):
            spread, over = spread | {"collapse": group[0]["collapse_std"]}, "resamples"
        shared = dict(zip(SAME, key, strict=True))
        summaries.append(shared | {"networks": len(group), "mean": means(tables), "std": spread, "over": over})
    return summaries


def deviations(tables: Sequence[Any]) -> Any:
    """Sample standard deviation of each number of nested dicts and lists of the same form; None where one is None."""
    return combine(tables, lambda values: float(np.std(values, ddof=1)) if len(values) > 1 else None)


def means(tables: Sequence[Any]) -> Any:
    """Mean of each number, as `deviations`."""
    return combine(tables, lambda values: float(np.mean(values)))


def combine(tables: Sequence[Any], function: Callable[[list[float]], float | None]) -> Any:
    """Apply a function to the numbers at each place of nested dicts and lists; None where one of them is missing."""
    first = tables[0]
    if isinstance(first, dict):
        names = [name for name in first if all(name in table for table in tables)]
        return {name: combine([table[name] for table in tables], function) for name in names}
    if isinstance(first, list):
        return [combine(parts, function) for parts in zip(*tables, strict=True)]
    return None if any(value is None for value in tables) else function(list(tables))
