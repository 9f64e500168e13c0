# SPDX-License-Identifier: Apache-2.0
"""starts.jsonl: one line each time that training started or went on, and where it was then."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ncjax.errors import UserError
from ncjax.results import Environment
from ncjax.storage.atomic import append_text
from ncjax.storage.metrics import METRICS, read_records
from ncjax.typed_json import structure, unstructure

STARTS = "starts.jsonl"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start of training: epochs and steps that metrics.jsonl held then, and what it was started with."""

    epoch: int
    step: int
    command: str = ""
    device: str = ""
    commit: str | None = None


def record_start(workdir: Path, command: str, environment: Environment) -> None:
    """Add a line, for the holder of the lock of the work directory."""
    epoch, step = 0, 0
    with suppress(UserError):  # a damaged file is named by what reads it for its numbers
        records = read_records(workdir / METRICS)
        epoch, step = (records[-1].epoch, records[-1].step) if records else (0, 0)
    start = Start(epoch=epoch, step=step, command=command, device=environment.device, commit=environment.commit)
    append_text(workdir / STARTS, json.dumps(unstructure(start)) + "\n")


def read_starts(workdir: Path) -> tuple[Start, ...]:
    """All lines that are whole; none where there is no file, as of a run of an earlier version."""
    path = workdir / STARTS
    found = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, RecursionError):
                found.append(structure(Start, json.loads(line), str(path)))
    return tuple(found)
