# SPDX-License-Identifier: Apache-2.0
"""What a caller measures after each epoch of training, as columns of metrics.jsonl."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ncjax.distributed.processes import on_main_process
from ncjax.errors import UserError
from ncjax.features.run import Run
from ncjax.training.metrics import by_member

Callback = Callable[[int, Run], Mapping[str, Any] | None]


def call_callbacks(callbacks: Sequence[Callback], epoch: int, run: Run) -> dict[str, dict[str, float]]:
    """Calls each callback on the main process, and returns its metrics by name and member.

    Args:
        callbacks: `(epoch, run) -> metrics or None`; a metric is one number for all members, a number for each in their
            order, or a mapping from their names.
        epoch: that has just ended.
        run: `run.state()` is that after the epoch, `run.metrics()` ends with the epoch before.

    Raises:
        UserError: a metric is none of these, or two callbacks give the same one.
    """
    found: dict[str, dict[str, float]] = {}

    def call() -> None:
        for callback in callbacks:
            for metric, values in (callback(epoch, run) or {}).items():
                if metric in found:
                    raise UserError(f"two callbacks give {metric!r}; rename one")
                found[metric] = _of_members(metric, values, run)

    on_main_process(call)
    return found


def _of_members(metric: str, values: Any, run: Run) -> dict[str, float]:
    names = [member.name for member in run.members]
    if isinstance(values, Mapping):
        values = [values[name] for name in names] if set(values) == set(names) else None
    elif values is not None and np.ndim(values) == 0:
        values = [values] * len(names)
    try:
        row = np.asarray([] if values is None else values, np.float64)
    except (TypeError, ValueError):
        row = np.zeros(0)
    if row.shape != (len(names),):
        raise UserError(
            f"a callback gives {metric!r}, which must be one number, a number for each of the {len(names)} members in "
            "their order, or a mapping from their names to numbers"
        )
    return by_member(run.members, row)
