# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl and, on request, TensorBoard."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ncjax.errors import UserError
from ncjax.distributed.processes import is_main_process

Write = Callable[[dict[str, Any]], None]


def keep_until(path: Path, step: int) -> float:
    """Drop the lines after `step`, and a half-written last line: a resumed run writes them again.

    Returns:
        `wall_secs` of the last line kept, 0 where there is none: the seconds that led to `step`.

    Raises:
        UserError: a line before the last cannot be read; the file stays as it is.
    """
    if not path.exists():
        return 0.0
    kept: list[bytes] = []
    secs = 0.0
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if record["step"] > step:
                break
            secs = float(record["wall_secs"])
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number} is damaged; mend it, or move the file away to go on") from error
            break
        kept.append(line)
    draft = path.with_suffix(".draft")
    draft.write_bytes(b"".join(line + b"\n" for line in kept))
    draft.replace(path)
    return secs


@contextmanager
def open_metrics(workdir: Path, *, tensorboard: bool) -> Iterator[Write]:
    """A function that appends one object to metrics.jsonl, and to TensorBoard events where asked for.

    Numbers that are not finite become null. Lists are member-wise. Of several processes, the first writes.

    Raises:
        UserError: TensorBoard is asked for and tensorboardX is not installed.
    """
    if not is_main_process():
        yield lambda record: None
        return
    events = _event_writer(workdir) if tensorboard else None

    def write(record: dict[str, Any]) -> None:
        with (workdir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({name: _finite(value) for name, value in record.items()}, allow_nan=False) + "\n")
        if events is not None:
            for name, values in record.items():
                for member, value in enumerate(values if isinstance(values, list) else []):
                    events.add_scalar(f"{name}/member_{member}", value, record["step"])

    yield write
    if events is not None:
        events.close()


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _event_writer(workdir: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs tensorboardX; install it with: pip install 'ncjax[tensorboard]'"
        ) from error
    return SummaryWriter(str(workdir / "tensorboard"))
