# SPDX-License-Identifier: Apache-2.0
"""The work directory of a run: its lock, and config.json, which says what made it."""

import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import filelock

from ncjax.buckets import BucketPath
from ncjax.config import C, Config, from_dict_of, to_dict
from ncjax.errors import UserError, first_line
from ncjax.results import Environment
from ncjax.storage.atomic import remove_drafts, remove_folder, write_json, write_text
from ncjax.storage.failures import why_not_written
from ncjax.storage.leases import HeldElsewhere, leased
from ncjax.typed_json import differences, structure, unstructure

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"  # its folder of these
COHORTS = "cohorts"  # its folder of members that were added later: cohorts/1, cohorts/2, ...
RESULTS = "results"
TRAINING = "results/training.json"  # written when training has come to its end
LOCK = ".lock"
HOLDER = ".lock_holder"  # says which process holds the lock; the content of the lock file itself is filelock's
FREE = ("mesh", "checkpoint_minutes", "tensorboard", "wandb")  # what may change from one start of a run to the next
FEATURE_DRAFT = ".draft"
WITH_DRAFTS = (".", "features", "results", "results/clusters")
OTHER_VERSION = "(was it written by another version of ncjax?)"


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """The content of config.json: what made a run, written before its first step."""

    config: Mapping[str, Any]
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    device: str = ""
    run: str = ""  # what its checkpoints and features are marked with; empty: made by an earlier version
    cohorts: int = 0  # how many folders of members that were added later belong to the run
    members: tuple[str, ...] = ()  # of a run that has grown, all names in the order of the config


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_json)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is this the work directory of a run?") from error
    except (ValueError, RecursionError) as error:
        reason = first_line(error)
        raise UserError(
            f"{path} is not JSON ({reason}); mend it, or move it away and run the command that writes it again"
        ) from error


def _not_json(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number of JSON")


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Hold the lock of a work directory, which is created where there is none; the lock ends with the process.

    What killed processes left half-written there is removed. Only trainers take the lock; readers of a work directory
    need no lock and no permission to write.

    Raises:
        UserError: another process holds the lock (it is named), or the directory cannot be written or has a name that
            arrays cannot be written below.
    """
    with _locked(workdir, 0.0, "wait for its end or choose another one"):
        for folder in (workdir, *workdir.glob(f"{COHORTS}/*")):
            _remove_what_killed_processes_left(folder)
        yield


@contextmanager
def results_locked(workdir: Path, wait_secs: float = 60.0) -> Iterator[None]:
    """Hold the lock of `results/`, so that evaluations do not mix what they write; also while a trainer has its own.

    Raises:
        UserError: another process holds it for longer than is waited (it is named), or it cannot be written.
    """
    with _locked(workdir / RESULTS, wait_secs, "wait for its end"):
        yield


@contextmanager
def _locked(folder: Path, wait_secs: float, remedy: str) -> Iterator[None]:
    _check_name(folder)
    lock = partial(_leased, folder) if isinstance(folder, BucketPath) else partial(_locked_file, folder)
    with lock(wait_secs, remedy):
        _name_holder(folder)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / HOLDER).unlink()


@contextmanager
def _leased(folder: BucketPath, wait_secs: float, remedy: str) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(leased(folder / LOCK, this_process(), wait_secs))
        except HeldElsewhere as error:
            raise UserError(f"{folder} is in use by {error}; {remedy}") from error
        except ValueError as error:
            raise UserError(f"cannot write {folder}: {first_line(error)}; choose another work directory") from error
        yield


@contextmanager
def _locked_file(folder: Path, wait_secs: float, remedy: str) -> Iterator[None]:
    lock = filelock.FileLock(folder / LOCK, timeout=wait_secs, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f"{folder} is in use by {_holder(folder)}; {remedy}") from error
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another work directory") from error
    try:
        yield
    finally:
        lock.release()


def this_process() -> str:
    """What names this process to others."""
    return f"process {os.getpid()} on {platform.node()}"


def _name_holder(workdir: Path) -> None:
    try:
        write_text(workdir / HOLDER, this_process())
    except OSError as error:
        raise UserError(f"cannot write {workdir}: {why_not_written(workdir, error)}") from error


def _remove_what_killed_processes_left(workdir: Path) -> None:
    parts = (workdir, *(workdir / COHORTS).glob("*"))
    remove_drafts(part / folder for part in parts for folder in WITH_DRAFTS)
    for part in parts:
        for pattern in (f".*{FEATURE_DRAFT}*", "*.orbax-checkpoint-tmp*"):
            for draft in (part / "features").glob(pattern):
                remove_folder(draft)


def is_finished(checkpoint: Path) -> bool:
    """Whether a checkpoint is whole: on a disk it gets its name then; in a bucket, Orbax adds a file."""
    return not isinstance(checkpoint, BucketPath) or (checkpoint / "commit_success.txt").exists()


def feature_draft(workdir: Path, epoch: int) -> Path:
    """Where the features of an epoch are written before they are whole; only the holder of the lock writes any."""
    return (workdir / "features" / f".{epoch}{FEATURE_DRAFT}").absolute()


def _check_name(workdir: Path) -> None:
    """Raises a UserError where TensorStore or gcsfs would write to another path."""
    name = str(workdir.absolute())
    if isinstance(workdir, BucketPath):
        if pattern := set(name) & set("*?["):
            raise UserError(f"{name} holds {min(pattern)}, which gcsfs takes for a pattern; choose another one")
        return
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"work directory {name!a} is not UTF-8; choose another work directory") from error
    if os.sep != "\\" and "\\" in name:
        raise UserError(f"work directory {name} holds a backslash, which TensorStore takes for /; choose another one")


def _holder(workdir: Path) -> str:
    try:
        return (workdir / HOLDER).read_text(encoding="utf-8")
    except OSError:
        return "another process"


def open_workdir(workdir: Path, config: Any, command: str, environment: Environment) -> None:
    """Create the work directory of a run with its config.json, or check that it is one of the same config.

    Where a run has several processes, call this on the main process alone.

    Args:
        workdir: the work directory.
        config: a dataclass.
        command: the command line.
        environment: what the run uses.

    Raises:
        UserError: it holds a run of another config (the differing fields are named), or checkpoints of a run that is
            not known, or cannot be written.
    """
    _check_name(workdir)
    path = workdir / CONFIG
    if path.exists():
        _check_same(to_dict(read_config_of(type(config), workdir)), to_dict(config), workdir)
        return
    if any((workdir / CHECKPOINTS).glob("[0-9]*")):
        raise UserError(
            f"{workdir} holds checkpoints, but its {CONFIG} is gone; restore it, or choose another work directory"
        )
    content = RunFile(
        config=to_dict(config),
        command=command,
        versions=environment.versions,
        commit=environment.commit,
        device=environment.device,
        run=uuid.uuid4().hex,
    )
    write_run_file(workdir, content)


def write_run_file(workdir: Path, content: RunFile) -> None:
    """Write config.json, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    of_grown_runs = {"cohorts": 0, "members": []}
    written = {name: item for name, item in unstructure(content).items() if of_grown_runs.get(name) != item}
    try:
        write_json(workdir / CONFIG, written)
    except OSError as error:
        raise UserError(f"cannot write {workdir / CONFIG}: {error.strerror}; choose another work directory") from error


def part_folders(workdir: Path) -> tuple[Path, ...]:
    """The folders that hold members of a run: the work directory, then its cohorts; nothing is checked.

    Raises:
        UserError: config.json is not that of a run.
    """
    count = read_run_file(workdir).cohorts if (workdir / CONFIG).exists() else 0
    return workdir, *(cohort_folder(workdir, number) for number in range(1, count + 1))


def cohort_folder(workdir: Path, number: int) -> Path:
    """Where the members of a cohort are, a work directory of its own; they are numbered from 1."""
    return workdir / COHORTS / str(number)


def _check_same(there: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    before, after = ({name: item for name, item in config.items() if name not in FREE} for config in (there, now))
    differing = [f"{name}: {old!r} there, {new!r} now" for name, old, new in differences(before, after)]
    if differing:
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(differing)}); choose another work directory"
        )


def read_run_file(workdir: Path) -> RunFile:
    """The content of config.json.

    Raises:
        UserError: there is none, or it is not that of a run.
    """
    path = workdir / CONFIG
    content = read_json(path)
    if not isinstance(content, dict) or "config" not in content:
        raise UserError(f"{path} holds no config; is this the work directory of a run?")
    return structure(RunFile, content, f"{path} {OTHER_VERSION}")


def run_id(workdir: Path) -> str:
    """What the checkpoints and features of a run are marked with; empty where config.json names none or is missing.

    Raises:
        UserError: config.json is not that of a run.
    """
    return read_run_file(workdir).run if (workdir / CONFIG).exists() else ""


def read_config(workdir: Path) -> Config:
    """The config of the run in a work directory.

    Raises:
        UserError: there is none, another version of ncjax wrote it, or a value is out of range.
    """
    return read_config_of(Config, workdir)


def read_config_of(kind: type[C], workdir: Path) -> C:
    """`read_config` for another kind of config.

    Raises:
        UserError: as `read_config`.
    """
    return from_dict_of(kind, read_run_file(workdir).config, f"{workdir / CONFIG} {OTHER_VERSION}")
