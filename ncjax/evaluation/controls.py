# SPDX-License-Identifier: Apache-2.0
"""Controls of a run: the raw pixels of its images, measured as features are."""

import math
from collections.abc import Sequence

import numpy as np

from ncjax.config import MeshConfig
from ncjax.data import Dataset, Split, Streamed
from ncjax.data.label_maps import LabelMap
from ncjax.errors import UserError
from ncjax.features.feature_set import FEATURES, FeatureSet, SplitFeatures
from ncjax.features.run import Run
from ncjax.results import Row

PIXELS_GIB = 4  # of training pixels of a streamed data set, as features; larger ones are no row
PIXELS_CLUSTER = 0.9  # share of examples that k-means on raw pixels gets right; above it a note warns


def pixel_features(dataset: Dataset, label_map: LabelMap, mesh: MeshConfig) -> FeatureSet:
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
