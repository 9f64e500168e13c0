# SPDX-License-Identifier: Apache-2.0
"""Where the arrays of an evaluation lie in a work directory, and how they are read; an evaluation writes them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ncjax.errors import UserError
from ncjax.examples import Clusters, Examples, Planes
from ncjax.storage.npy import load_npz

PARTS = tuple(field.name for field in dataclasses.fields(Clusters))
WITHOUT_EPOCH = "raw_pixels"  # the file of rows that belong to no epoch
ROW_ARRAYS = ("names", "layers", "super_classes")


def cluster_file(workdir: Path, epoch: int | None) -> Path:
    """The reconstructed labels of an epoch; None: of rows that belong to none."""
    return workdir / "results" / "clusters" / f"{WITHOUT_EPOCH if epoch is None else epoch}.npz"


def examples_file(workdir: Path) -> Path:
    """The true labels, and the examples to look at."""
    return workdir / "results" / "examples.npz"


def read_clusters(workdir: Path, epoch: int | None) -> dict[str, Clusters]:
    """The reconstructed labels that results/clusters/EPOCH.npz holds, by view; None: those of raw pixels.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    file = cluster_file(workdir, epoch)
    try:
        arrays = load_npz(file)
    except UserError as error:
        raise UserError(f"{file} cannot be read ({error}); run: ncjax evaluate {workdir}") from error
    views = [name.removesuffix("_matching") for name in arrays if name.endswith("_matching")]
    return {view: Clusters(**{part: arrays.get(f"{view}_{part}") for part in PARTS}) for view in views}  # type: ignore[arg-type]


def arrays_of(examples: Examples) -> dict[str, np.ndarray]:
    """What results/examples.npz holds.

    `train_labels [n]`, `test_labels [m]`, `rows [q]`, `thumbnails [q h w ch]`, `epoch []`, `names [s]`,
    `whole [s q 2]` and `inside [s q 2]`; what there is none of is left out.
    """
    planes = examples.planes
    known = {
        "train_labels": examples.train_labels,
        "test_labels": examples.test_labels,
        "rows": examples.rows,
        "thumbnails": examples.thumbnails,
        "epoch": None if examples.epoch is None else np.array(examples.epoch),
        "names": np.array(list(planes)) if planes else None,
        "whole": np.stack([plane.whole for plane in planes.values()]) if planes else None,
        "inside": np.stack([plane.inside for plane in planes.values()]) if planes else None,
    }
    return {name: array for name, array in known.items() if array is not None}


def read_examples(workdir: Path) -> Examples:
    """The content of results/examples.npz.

    Raises:
        UserError: there is no such file, it cannot be read, or its parts do not fit together.
    """
    file = examples_file(workdir)
    if not file.is_file():
        raise UserError(f"{file} is missing; run: ncjax evaluate {workdir}")
    try:
        return _examples(load_npz(file))
    except (UserError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}); run: ncjax evaluate {workdir}") from error


def _examples(arrays: Mapping[str, np.ndarray]) -> Examples:
    rows, labels = arrays["rows"], arrays["train_labels"]
    names, thumbnails = arrays.get("names", np.array([])), arrays.get("thumbnails")
    planes = {
        str(name): Planes(whole, inside)
        for name, whole, inside in zip(names, *(arrays.get(part, ()) for part in ("whole", "inside")), strict=True)
    }
    lengths = {len(rows), *(len(plane.whole) for plane in planes.values())}
    lengths |= set() if thumbnails is None else {len(thumbnails)}
    if len(lengths) > 1 or (rows.size and not 0 <= rows.min() <= rows.max() < len(labels)):
        raise ValueError("its arrays do not fit each other")
    return Examples(
        train_labels=labels,
        test_labels=arrays.get("test_labels"),
        rows=rows,
        thumbnails=thumbnails,
        epoch=int(arrays["epoch"]) if "epoch" in arrays else None,
        planes=planes,
    )
