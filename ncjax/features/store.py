# SPDX-License-Identifier: Apache-2.0
"""Features of a run as they are read from `features/EPOCH`, and who the members are: `members.json`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ncjax.config import Config, MeshConfig
from ncjax.data import Dataset, load_dataset
from ncjax.data.label_maps import LabelMap
from ncjax.distributed.processes import broadcast_message, is_main_process, lost_peer
from ncjax.errors import UserError, first_line
from ncjax.features.feature_set import FEATURES, FeatureSet, Heads, SplitFeatures
from ncjax.storage.arrays import Rows
from ncjax.storage.atomic import write_json
from ncjax.storage.checksums import Identity, damage
from ncjax.storage.literal_paths import literal_path
from ncjax.storage.stored_arrays import INDEX, Place, StoredRows, open_arrays, open_stored
from ncjax.storage.workdir import CONFIG, part_folders, read_config, read_json, read_run_file, run_id
from ncjax.training.forward import LOGITS
from ncjax.training.members import Member, default_label_map, list_members
from ncjax.typed_json import structure, unstructure

ORBAX_INDEX = "_METADATA"  # says which arrays there are, where an earlier version wrote them by Orbax
MEMBERS_FILE = "members.json"
AGAIN = "; the command that trained the run makes them again, where it kept a checkpoint of that epoch"


@dataclass(frozen=True, kw_only=True)
class RunMembers:
    """What readers of a run need beside its config.

    Attributes:
        dataset: its name.
        class_names: of the fine classes.
        from_memory: whether the data set was made of arrays, so that the config does not say where to read it.
        default_map: label map whose super-classes serve members that have none of their own; None: there is none.
        members: by name, in order.
    """

    dataset: str
    class_names: tuple[str, ...]
    from_memory: bool
    default_map: LabelMap | None
    members: Mapping[str, Member]


def describe_members(config: Config, dataset: Dataset, *, from_memory: bool) -> RunMembers:
    """The members of a config on its data.

    Raises:
        UserError: a label map does not fit the data.
    """
    return RunMembers(
        dataset=dataset.name,
        class_names=dataset.class_names,
        from_memory=from_memory,
        default_map=default_label_map(config, dataset.class_names, dataset.super_classes),
        members={member.name: member for member in list_members(config, dataset)},
    )


def write_members(workdir: Path, members: RunMembers) -> None:
    """Write members.json, where there is none that can be read: it follows from the config and the data.

    Raises:
        UserError: the members there are trained on other labels: a file that a label map was read from has changed.
    """
    path = workdir / MEMBERS_FILE
    if not path.is_file():
        write_json(path, unstructure(members))
        return
    try:
        there = read_members(workdir)
    except UserError:
        write_json(path, unstructure(members))
        return
    check_labels(workdir, there, members)


def check_labels(workdir: Path, there: RunMembers, now: RunMembers) -> None:
    """Compare the label maps of members of the same name.

    Raises:
        UserError: one has other labels: a file that it was read from has changed.
    """
    for name, member in now.members.items():
        if name in there.members and there.members[name].label_map != member.label_map:
            raise UserError(
                f"{workdir} holds a run whose label map {member.label_map.name} gave the classes other labels; "
                "put back the file that it is read from, or choose another work directory"
            )


def read_members(workdir: Path) -> RunMembers:
    """Read members.json; of a run of an earlier version, which has none, the config and its data say the same.

    Raises:
        UserError: it is damaged, or the data of an earlier run cannot be read.
    """
    path = workdir / MEMBERS_FILE
    if path.exists():
        return structure(RunMembers, read_json(path), f"{path} does not fit")
    config = read_config(workdir)
    return describe_members(config, load_dataset(config.data), from_memory=False)


def read_parts(workdir: Path) -> tuple[RunMembers, ...]:
    """The members of a work directory, and of each of its cohorts.

    Raises:
        UserError: a members.json is missing or damaged.
    """
    folders = part_folders(workdir)
    for folder in folders[1:] and folders:
        if not (folder / MEMBERS_FILE).is_file():
            raise UserError(f"{folder / MEMBERS_FILE} is missing, which says who the members there are; restore it")
    return tuple(map(read_members, folders))


def join_members(parts: Sequence[RunMembers], order: Sequence[str]) -> RunMembers:
    """The members of all parts, in an order of names; none: that of the parts. What else there is, the last part says.

    Raises:
        UserError: the names are not those of the members.
    """
    members = {name: member for part in parts for name, member in part.members.items()}
    if order and set(order) != set(members):
        (name, *_) = sorted(set(order) ^ set(members))
        raise UserError(
            f"{CONFIG} and {MEMBERS_FILE} do not name the same members: {name} is in one of them; restore it"
        )
    return dataclasses.replace(parts[-1], members={name: members[name] for name in order or members})


def load_features(workdir: Path, epoch: int, *, on_disk: bool = False, config: Config | None = None) -> FeatureSet:
    """Read features/EPOCH of the members of one folder.

    Args:
        workdir: of the run, or of a cohort.
        epoch: after which they were kept.
        on_disk: layers stay on disk, and are read where they are indexed.
        config: of the run; None: that of the folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    folder = epoch_folder(workdir, epoch)
    if not folder.is_dir():
        kept = ", ".join(map(str, saved_epochs(workdir))) or "none"
        raise UserError(f"no features of epoch {epoch} in {workdir} (kept: {kept}); set evaluate.epochs and train")
    reason = broadcast_message(missing_features(workdir, epoch) if is_main_process() else "")
    if reason:
        raise UserError(f"features in {folder} cannot be read ({reason}){AGAIN}")
    try:
        content = _read(folder, on_disk)
        config = config or read_config(workdir)
        train, test = (_split(content, name, config.evaluate.layers) for name in ("train", "test"))
        weights, bias = (content.get(("classifier", part)) for part in Heads._fields)
        heads = None if weights is None or bias is None else Heads(weights, bias)
        run = read_members(workdir)
        _check_count(train, len(run.members))
    except Exception as error:  # what Orbax raises of files that are not its own is of many kinds
        if lost_peer(error):
            raise
        raise UserError(f"features in {folder} cannot be read ({first_line(error)}){AGAIN}") from error
    return label_features(run, config.mesh, epoch, train, test, heads)


def _read(folder: Path, on_disk: bool) -> Mapping[Place, Any]:
    """The arrays of a folder by place; large ones as the rows of each member."""
    arrays = open_arrays(folder) if (folder / INDEX).is_file() else _open_orbax(folder)

    def read(place: Place, array: Any) -> np.ndarray | Sequence[Rows]:
        if on_disk and place[0] != "classifier" and place[1] in (FEATURES, LOGITS, "layers"):
            return tuple(StoredRows(array[member]) for member in range(array.shape[0]))
        return np.asarray(array.read().result())

    return {place: read(place, array) for place, array in arrays.items()}


def _open_orbax(folder: Path) -> dict[Place, Any]:
    """What an earlier version wrote."""
    with ocp.StandardCheckpointer() as checkpointer:
        described = checkpointer.metadata(literal_path(folder)).item_metadata.tree
    places = {tuple(key.key for key in path): about.name for path, about in jax.tree.leaves_with_path(described)}
    return {place: open_stored(folder, name) for place, name in places.items()}


def missing_features(workdir: Path, epoch: int) -> str:
    """Why features/EPOCH cannot be read; empty where it is what was written."""
    folder = epoch_folder(workdir, epoch)
    if not folder.is_dir():
        return "they are missing"
    if not any((folder / index).is_file() for index in (INDEX, ORBAX_INDEX)):
        return f"{INDEX} is missing: were they half deleted?"
    return damage(folder, identity=identity_of(workdir, epoch))


def identity_of(workdir: Path, epoch: int) -> Identity:
    """What the checksum file says that features are of."""
    return {"run": run_id(workdir), "epoch": epoch}


def _check_count(split: SplitFeatures, members: int) -> None:
    counts = {len(rows) for rows in split.layers.values()}
    if counts != {members}:
        raise UserError(f"they are of {max(counts)} members, but {MEMBERS_FILE} names {members}")


def _split(content: Mapping[Place, Any], name: str, order: Sequence[str]) -> SplitFeatures:
    layers = {FEATURES: content[name, FEATURES]}
    layers |= {place[2]: rows for place, rows in content.items() if place[:2] == (name, "layers")}
    return SplitFeatures(
        layers={layer: layers[layer] for layer in order if layer in layers} or layers,
        labels=content[name, "fine"],
        logits=content[name, LOGITS],
        targets=content[name, "coarse"],
    )


def label_features(
    run: RunMembers, mesh: MeshConfig, epoch: int | None, train: SplitFeatures, test: SplitFeatures, heads: Heads | None
) -> FeatureSet:
    """The features of a run with all that is known of it."""
    return FeatureSet(
        train=train,
        test=test,
        names=tuple(run.members),
        members=tuple(run.members.values()),
        classifier=heads,
        epoch=epoch,
        class_names=run.class_names,
        default_map=run.default_map,
        mesh=mesh,
    )


def open_features(workdir: Path, epoch: int, split: str = "train", member: int = 0) -> StoredRows:
    """One member's features `[n d]`, read from disk where they are indexed: for `stream_kmeans`.

    Raises:
        UserError: there are none of that epoch, split or member.
    """
    folder, member = _place(workdir, member)
    try:
        array = _open_split(epoch_folder(folder, epoch), split)
    except (KeyError, ValueError) as error:
        raise UserError(f"no {split} features of epoch {epoch} in {folder}; train with evaluate.epochs") from error
    if not 0 <= member < array.shape[0]:
        raise UserError(f"no member {member} in {workdir}: there are {array.shape[0]}")
    return StoredRows(array[member])


def _open_split(folder: Path, split: str) -> Any:
    if (folder / INDEX).is_file():
        return open_arrays(folder)[split, FEATURES]
    return open_stored(folder, f"{split}.{FEATURES}")


def _place(workdir: Path, member: int) -> tuple[Path, int]:
    """The folder that holds a member of a run, and its number there."""
    order = read_run_file(workdir).members if (workdir / CONFIG).exists() else ()
    if not 0 <= member < len(order):
        return workdir, member
    for folder, part in zip(part_folders(workdir), read_parts(workdir), strict=True):
        if order[member] in part.members:
            return folder, list(part.members).index(order[member])
    raise UserError(f"{workdir / CONFIG} names {order[member]}, but no {MEMBERS_FILE} does; restore it")


def saved_epochs(workdir: Path) -> tuple[int, ...]:
    """The epochs whose features a work directory holds, in order."""
    folders = (workdir / "features").glob("*")
    return tuple(sorted(int(folder.name) for folder in folders if folder.name.isdigit()))


def epoch_folder(workdir: Path, epoch: int) -> Path:
    """Where the features of an epoch lie."""
    return (workdir / "features" / str(epoch)).absolute()
