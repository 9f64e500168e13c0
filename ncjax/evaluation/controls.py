# SPDX-License-Identifier: Apache-2.0
"""What a run is measured under, with controls for every label map: pixels, random initialization, fine labels."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ncjax.config import MeshConfig
from ncjax.data import Dataset, Split, Streamed
from ncjax.data.label_maps import LabelMap
from ncjax.errors import UserError
from ncjax.features.feature_set import FEATURES, FeatureSet, SplitFeatures
from ncjax.features.run import Run
from ncjax.features.store import RunMembers
from ncjax.results import Evaluation, Row
from ncjax.training.losses import LOWEST

PIXELS_GIB = 4  # of training pixels of a streamed data set, as features; larger ones are no row
PIXELS_CLUSTER = 0.9  # share of examples that k-means on raw pixels gets right; above it a note warns
NAMED = 5  # label maps that a note lists


def distinct_maps(run: RunMembers) -> tuple[LabelMap | None, ...]:
    """The distinct label maps that members of a run are measured under; of those that merge alike, the first.

    Returns:
        The maps in the order of the members, the default map last; `(None,)` where no map merges classes.
    """
    unshuffled = dict.fromkeys(member.label_map.unshuffled for member in run.members.values())
    distinct: dict[tuple[int, ...] | None, LabelMap] = {}
    for one in (*unshuffled, run.default_map):
        if one is not None and one.merges:
            distinct.setdefault(one.super_class, one)
    return tuple(distinct.values()) or (None,)


def pixel_features(dataset: Dataset, label_map: LabelMap | None, mesh: MeshConfig) -> FeatureSet:
    """The pixels of both splits in [0, 1] as features `[n h*w*ch]`, with the super-classes of a label map."""

    def flat(split: Split) -> SplitFeatures:
        pixels = split.images[:].astype(np.float32).reshape(len(split.labels), -1) / 255
        return SplitFeatures(layers={FEATURES: (pixels,)}, labels=split.labels)

    return FeatureSet(
        train=flat(dataset.train),
        test=flat(dataset.test),
        names=("raw pixels",),
        kind="raw_pixels",
        class_names=dataset.class_names,
        default_map=label_map,
        mesh=mesh,
    )


class Part(NamedTuple):
    """Features that are evaluated at once.

    Attributes:
        features: of some members, or of a control.
        members: their numbers in the run; empty: of a control.
        label_map: the name of that which they are measured under, if not their own.
    """

    features: FeatureSet
    members: tuple[int, ...] = ()
    label_map: str | None = None

    def name_rows(self, found: Evaluation, several: bool) -> Evaluation:
        """What was found of a part, in the names of the run; `several`: whether there are several label maps."""
        rows = tuple(self._name(row) for row in found.rows)
        if not (several and self.members and self.label_map):
            return dataclasses.replace(found, rows=rows)
        fits = tuple(dataclasses.replace(fit, name=f"{fit.name}, {self.label_map}") for fit in found.separation)
        return dataclasses.replace(found, rows=rows, separation=fits)

    def _name(self, row: Row) -> Row:
        member = self.members[row.member] if self.members and row.member is not None else None
        return dataclasses.replace(row, member=member, label_map=row.label_map or self.label_map)


def pixel_parts(dataset: Dataset, maps: Sequence[LabelMap | None], mesh: MeshConfig) -> list[Part]:
    """Raw pixels under each label map."""
    pixels = pixel_features(dataset, None, mesh)
    return [Part(dataclasses.replace(pixels, default_map=found), label_map=name_of(found)) for found in maps]


def initial_parts(features: FeatureSet, maps: Sequence[LabelMap | None]) -> list[Part]:
    """The network at random initialization under each label map; members of one seed start alike and count once."""
    first = {member.seed: number for number, member in reversed(list(enumerate(features.members)))}
    chosen = features.select(sorted(first.values()))
    return [Part(_as_trained_on(chosen, found) if found else chosen) for found in maps]


def _as_trained_on(features: FeatureSet, label_map: LabelMap) -> FeatureSet:
    members = tuple(dataclasses.replace(member, label_map=label_map) for member in features.members)
    heads, classes = features.classifier, label_map.classes
    fits = heads is not None and heads.bias.shape[-1] >= classes and bool((heads.bias[:, :classes] > LOWEST).all())
    return dataclasses.replace(
        features,
        members=members,
        names=tuple(member.name for member in members),
        classifier=heads if fits else None,
    )


def trained_parts(features: FeatureSet, maps: Sequence[LabelMap | None], names: Sequence[str] = ()) -> list[Part]:
    """Members on coarse labels, shuffled ones included, under their own label map; others under each label map.

    Args:
        features: of members of a run.
        maps: that members on fine labels are measured under.
        names: of all members of the run, which number them; none: those of the features.
    """
    place = {name: number for number, name in enumerate(names or features.names)}
    numbered = [place[name] for name in features.names]
    members = [member.label_map for member in features.members]
    merging = tuple(number for number, found in enumerate(members) if found.merges)
    free = [number for number, found in enumerate(members) if not found.unshuffled.merges]
    under: dict[LabelMap | None, list[int]] = {found: list(free) for found in maps}
    for number, own in enumerate(members):
        if own.shuffled and own.unshuffled.merges:
            alike = (one for one in maps if one and one.super_class == own.unshuffled.super_class)
            under.setdefault(next(alike, own.unshuffled), []).append(number)
    parts = [Part(features.select(merging), tuple(numbered[i] for i in merging))] if merging else []
    for found, numbers in under.items():
        chosen = tuple(sorted(numbers))
        measured = dataclasses.replace(features.select(chosen), default_map=found)
        parts += [Part(measured, tuple(numbered[i] for i in chosen), name_of(found))] if chosen else []
    return parts


def name_of(label_map: LabelMap | None) -> str | None:
    """The name of a label map."""
    return None if label_map is None else label_map.name


def maps_left_out(maps: Sequence[LabelMap | None], most: int) -> list[str]:
    """Which label maps have no controls of their own; empty where all have."""
    left = [found.name for found in maps[most:] if found is not None]
    if not left:
        return []
    named = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
    return [
        f"Only the first {most} of {len(maps)} label maps have pixels, random initialisation and fine labels measured "
        f"under them, not {named}; --control-maps {len(maps)} measures all."
    ]


def pixels_left_out(run: Run) -> list[str]:
    """Why raw pixels are no row of an evaluation; empty where they are one."""
    try:
        images = run.dataset.train.images
    except UserError as error:
        if not run.described.from_memory:
            raise
        return [f"Raw pixels are no row of the table: {error}"]
    gib = 4 * math.prod(images.shape) / 2**30
    if not isinstance(images, Streamed) or gib <= PIXELS_GIB:
        return []
    return [f"Raw pixels are no row of the table: as features they would fill {gib:.0f} GiB of memory."]


def describe_controls(rows: Sequence[Row]) -> list[str]:
    """A warning where raw pixels cluster so well that the data set shows nothing about networks."""
    found = [
        one.value
        for row in rows
        for one in row.measurements
        if row.kind == "raw_pixels" and one.metric == "cluster_accuracy" and one.split == "train"
    ]
    pixels = max((value for value in found if value is not None), default=0.0)
    if pixels < PIXELS_CLUSTER:
        return []
    return [
        f"Raw pixels of this data set already cluster at {100 * pixels:.0f} % inside the super-classes: here the table "
        "shows that the pipeline works, not that a network hides structure."
    ]
