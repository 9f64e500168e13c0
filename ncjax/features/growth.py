# SPDX-License-Identifier: Apache-2.0
"""Runs that grow: which members of a config are missing in a work directory, and what a run may change at all.

What is there stays as it is. Missing members become a cohort in `cohorts/N/`, a small work directory with a config.json
and members.json of its own; it belongs to the run from the moment that config.json of the work directory counts it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.config import Config, to_dict
from ncjax.data import Dataset
from ncjax.data.record import keep_record
from ncjax.errors import UserError
from ncjax.features.feature_set import FEATURES
from ncjax.features.store import (
    MEMBERS_FILE,
    RunMembers,
    check_labels,
    describe_members,
    read_parts,
    saved_epochs,
    write_members,
)
from ncjax.results import Environment, TrainingSummary
from ncjax.storage.workdir import (
    CHECKPOINTS,
    COHORTS,
    CONFIG,
    FREE,
    TRAINING,
    cohort_folder,
    open_workdir,
    part_folders,
    read_config,
    read_json,
    read_run_file,
    write_run_file,
)
from ncjax.typed_json import differences, structure

OF_MEMBERS = ("labels", "seeds", "seed", "optim.lr", "optim.weight_decay")  # fields that say which members there are
LENGTH = ("optim.epochs", "optim.schedule_epochs")
OF_EVALUATION = (
    *("evaluate.epochs", "evaluate.layers", "evaluate.variants", "evaluate.control_maps", "evaluate.headline"),
    *("evaluate.restarts", "evaluate.memory_gib", "evaluate.observe_epochs"),
)
WHY = {
    "data": "all members of a run are trained on the same data",
    "model": "all members of a run have the same network",
    "loss": "all members of a run minimize the same loss",
    "optim": "all members of a run are trained alike but for learning rate and weight decay",
    "evaluate.labels": "members.json says what members on fine labels are measured under",
    "evaluate.observe_images": "metrics.jsonl is of the same images at every epoch",
}  # by a field, or the first part of its name
Difference = tuple[str, Any, Any]  # a field, what it is on disk, what is asked for


class Plan(NamedTuple):
    """What training is to do in a work directory.

    Attributes:
        parts: the members of the work directory, of its cohorts, and of the one that is to be made.
        there: how many of the parts are on disk; 0: the run begins.
        changed: whether the config on disk differs.
        longer: whether training goes on beyond the end that it had.
    """

    parts: tuple[RunMembers, ...]
    there: int = 0
    changed: bool = False
    longer: bool = False


def plan_growth(workdir: Path, config: Config, wanted: RunMembers, dataset: Dataset) -> Plan:
    """Compare a config with the run in a work directory; nothing is written.

    Args:
        workdir: may be none yet.
        config: that is asked for.
        wanted: its members.
        dataset: that they are trained on.

    Raises:
        UserError: what differs cannot be changed in a run; says which field, and why.
    """
    if not (workdir / CONFIG).exists():
        return Plan((wanted,))
    if workdir.parent.name == COHORTS and (workdir.parents[1] / CONFIG).exists():
        raise UserError(f"{workdir} is a cohort of {workdir.parents[1]}; give that work directory")
    before = read_config(workdir)
    changes = [one for one in differences(to_dict(before), to_dict(config)) if one[0].split(".")[0] not in FREE]
    if not changes and not read_run_file(workdir).members:
        return Plan((wanted,), 1)
    _check_changes(workdir, before, config, changes)
    _check_layers(workdir, before, config, dataset)
    parts = _parts_there(workdir, before, wanted, dataset)
    known = {name for part in parts for name in part.members}
    lost = sorted(known - set(wanted.members))
    if lost:
        changed = [one for one in changes if one[0] in OF_MEMBERS]
        raise _other(workdir, changed, f"member {lost[0]} is there, and none is taken away", "ask for it too")
    missing = {name: member for name, member in wanted.members.items() if name not in known}
    cohort = (replace(wanted, members=missing),) if missing else ()
    return Plan((*parts, *cohort), len(parts), bool(changes), config.optim.epochs > before.optim.epochs)


def _parts_there(workdir: Path, before: Config, wanted: RunMembers, dataset: Dataset) -> tuple[RunMembers, ...]:
    """The parts on disk; of a run that has no members.json yet, the members of its config."""
    if (workdir / MEMBERS_FILE).is_file() or len(part_folders(workdir)) > 1:
        parts = read_parts(workdir)
    else:
        parts = (describe_members(before, dataset, from_memory=wanted.from_memory),)
    for part in parts:
        check_labels(workdir, part, wanted)
    return parts


def _other(workdir: Path, differing: Sequence[Difference], why: str, remedy: str = "") -> UserError:
    named = "; ".join(f"{name}: {there!r} there, {now!r} now" for name, there, now in differing)
    remedy = f"{remedy}, or choose another work directory" if remedy else "choose another work directory"
    return UserError(f"{workdir} holds a run of another config ({named}): {why}; {remedy}")


def _check_changes(workdir: Path, before: Config, config: Config, changes: Sequence[Difference]) -> None:
    """Refuse what cannot change in a run.

    Raises:
        UserError: naming the fields, and why.
    """
    fixed = [one for one in changes if one[0] not in (*OF_MEMBERS, *LENGTH, *OF_EVALUATION)]
    if fixed:
        name = fixed[0][0]
        raise _other(workdir, fixed, WHY.get(name) or WHY.get(name.split(".")[0], "it is fixed when a run begins"))
    if any(one[0] in (*OF_MEMBERS, *LENGTH) for one in changes) and _is_imported(workdir):
        raise _other(workdir, changes, "its weights were imported, and how they were trained is not known")
    there, now = before.optim, config.optim
    length, wanted = (one.schedule_epochs or one.epochs for one in (there, now))
    of_length = [one for one in changes if one[0] in LENGTH]
    if now.epochs < there.epochs:
        raise _other(workdir, of_length, "epochs are added to a run, and none is taken away")
    if now.schedule != "constant" and length != wanted:
        why = f"schedule {now.schedule!r} was over {length} epochs, and over {wanted} it is another one"
        remedy = f"set optim.schedule_epochs to {length} to go on with the learning rate that it ends with"
        raise _other(workdir, of_length, why, remedy)


def _is_imported(workdir: Path) -> bool:
    path = workdir / TRAINING
    return path.exists() and bool(structure(TrainingSummary, read_json(path), f"{path} does not fit").imported)


def _check_layers(workdir: Path, before: Config, config: Config, dataset: Dataset) -> None:
    """Refuse layers that were not kept at an epoch that no checkpoint is left of.

    Raises:
        UserError: naming the layers and the epoch.
    """
    new = [layer for layer in config.evaluate.layers if layer not in (*before.evaluate.layers, FEATURES)]
    steps = dataset.train.labels.size // config.optim.batch
    for folder in part_folders(workdir) if new else ():
        for epoch in saved_epochs(folder):
            if epoch and not (folder / CHECKPOINTS / str(epoch * steps)).is_dir():
                layers = "evaluate.layers", list(before.evaluate.layers), list(config.evaluate.layers)
                why = f"{', '.join(new)} were not kept of epoch {epoch}, and no checkpoint of it is left"
                raise _other(workdir, [layers], why, f"ask for {' and '.join(before.evaluate.layers)} alone")


def write_plan(
    workdir: Path,
    config: Config,
    plan: Plan,
    wanted: RunMembers,
    dataset: Dataset,
    command: str,
    environment: Environment,
) -> None:
    """Write what `plan_growth` found, for the holder of the lock of the work directory.

    config.json of the work directory is written last, and at once: before, the run is what it was.

    Args:
        workdir: of the run.
        config: that is asked for.
        plan: of this config.
        wanted: the members of the config.
        dataset: as for `plan_growth`.
        command: kept in config.json.
        environment: what new members are trained in.

    Raises:
        UserError: the data are others, the work directory was changed since, or it cannot be written.
    """
    if plan_growth(workdir, config, wanted, dataset) != plan:
        raise UserError(f"{workdir} was changed by another process; start again")
    if not plan.there:
        open_workdir(workdir, config, command, environment)
    keep_record(workdir, dataset)
    write_members(workdir, plan.parts[0])
    if len(plan.parts) > max(plan.there, 1):
        _write_cohort(cohort_folder(workdir, plan.there), config, plan.parts[-1], command, environment)
    elif not plan.changed:
        return
    for folder in part_folders(workdir) if plan.longer else ():
        (folder / TRAINING).unlink(missing_ok=True)  # it says that training has ended; if killed, it is written again
    names = [name for part in plan.parts for name in part.members]
    order = () if names == list(plan.parts[0].members) == list(wanted.members) else tuple(wanted.members)
    written = replace(read_run_file(workdir), config=to_dict(config), command=command, members=order)
    write_run_file(workdir, replace(written, cohorts=len(plan.parts) - 1))


def _write_cohort(folder: Path, config: Config, members: RunMembers, command: str, environment: Environment) -> None:
    """The files that a cohort begins with; those of an earlier try, which trained nothing, are replaced."""
    if (folder / CHECKPOINTS).exists():
        raise UserError(
            f"{folder} holds checkpoints, but {CONFIG} of the run does not count it; restore {CONFIG}, or move it away"
        )
    for name in (CONFIG, MEMBERS_FILE):
        (folder / name).unlink(missing_ok=True)
    open_workdir(folder, config, command, environment)
    write_members(folder, members)
