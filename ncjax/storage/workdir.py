# SPDX-License-Identifier: Apache-2.0
"""The files of a run: where they lie, and how they are written so that none is ever half there."""

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from ncjax.config import C, Config, from_dict_of, to_dict
from ncjax.errors import UserError
from ncjax.distributed.processes import is_main_process

FREE = ("mesh", "checkpoint_minutes")  # what may change from one start of a run to the next
PACKAGES = ("ncjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; of several processes, the first does."""
    if not is_main_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    os.replace(draft, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is this the work directory of a run?") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run the stage that writes it again") from error


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Make a work directory where there is none, and keep other runs out of it; the lock goes with the process.

    Raises:
        UserError: another run holds it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot write {workdir}: {error.strerror}; choose another --workdir") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or "another run"
            raise UserError(f"{workdir} is in use by {holder}; wait for its end or choose another --workdir") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def open_workdir(workdir: Path, config: Any, command: str) -> None:
    """Make the work directory of a run with its config.json, or check that it is one of the same config.

    Raises:
        UserError: it holds a run of another config (the differing fields are named), or cannot be written.
    """
    path = workdir / "config.json"
    if path.exists():
        there, now = (
            {name: value for name, value in to_dict(content).items() if name not in FREE}
            for content in (read_config_of(type(config), workdir), config)
        )
        differing = _differences(there, now)
        if differing:
            raise UserError(
                f"{workdir} holds a run of another config ({'; '.join(differing)}); choose another --workdir"
            )
        return
    try:
        write_json(path, {"config": to_dict(config), "command": command, **environment()})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --workdir") from error


def read_config(workdir: Path) -> Config:
    """The config of the run in a work directory.

    Raises:
        UserError: there is none, or another version of ncjax wrote it.
    """
    return read_config_of(Config, workdir)


def read_config_of(kind: type[C], workdir: Path) -> C:
    """`read_config` for another kind of config.

    Raises:
        UserError: as `read_config`.
    """
    content = read_json(workdir / "config.json")
    if not isinstance(content, dict) or "config" not in content:
        raise UserError(f"{workdir / 'config.json'} holds no config; is this the work directory of a run?")
    return from_dict_of(kind, content["config"])


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name}: {before!r} there, {after!r} now")
    return found


def environment() -> dict[str, Any]:
    """Versions, commit and devices: what a number needs beside it."""
    devices = jax.devices()
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": _commit(),
        "device": f"{len(devices)} x {devices[0].device_kind} ({jax.default_backend()}), {os.cpu_count()} CPU cores",
    }


def _commit() -> str | None:
    source = Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
    except OSError:
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None
