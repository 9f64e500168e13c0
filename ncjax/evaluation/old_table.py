# SPDX-License-Identifier: Apache-2.0
"""The full table of collapse of any features: both splits, both levels, and the reason for what is left out."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from ncjax.collapse.neural_collapse import SelfDuality, self_duality
from ncjax.collapse.measure import (
    MOST_FEATURES,
    Classifier,
    Labelled,
    Level,
    Moments,
    Split,
    measure_split,
    nearest_mean_disagreement,
)
from ncjax.collapse.statistics import ClassStatistics, merge_classes

NO_CLASSIFIER = "nc3 and nc4: there are no classifier weights"


class CollapseTable(NamedTuple):
    """What was measured; a measure without a value is None."""

    values: dict[str, dict[str, Any]]  # [split][part][measure], with the parts coarse, fine, within and all
    left_out: tuple[str, ...]  # lines that say why
    class_distances: Float[np.ndarray, "f f"]  # of the training split


def collapse_table(
    train: Labelled,
    test: Labelled | None,
    super_class: tuple[int, ...],
    classifier: Classifier | None = None,
    mesh: Mesh | None = None,
) -> CollapseTable:
    """Measure both splits.

    Args:
        train: the split whose class means NC4 compares with the classifier.
        test: none: left out.
        super_class: coarse label of each fine class; where it merges none, coarse labels are left out.
        classifier: of as many classes as there are coarse or fine labels; none: NC3 and NC4 are left out.
        mesh: over which examples are spread (`ncjax.distributed.sharding`); none: one device.
    """
    coarse, fine = max(super_class) + 1, len(super_class)
    merges = coarse < fine
    level = None if classifier is None else {coarse: "coarse", fine: "fine"}.get(len(classifier.weights))
    left_out = list(_reasons(train, test, coarse, fine, classifier))
    values: dict[str, dict[str, Any]] = {}
    splits: list[tuple[Split, Moments]] = []
    for name, split in (("train", train), ("test", test)):
        if split is None:
            continue
        splits.append(measure_split(split, super_class, mesh))
        found, (moments, _) = jax.device_get(splits[-1][0]), splits[-1][1]
        left_out += _odd_classes(name, np.asarray(moments.counts))
        if not float(jnp.trace(moments.within)) + float(found.class_distances.max()) > 0:
            left_out.append(f"{name}: every measure: all features are the same")
            continue
        values[name] = split_to_json(found, merges=merges)
        if classifier is not None and level is not None:
            means = [_of_level(m.fine, super_class, level) for m in (splits[0][1], splits[-1][1])]
            values[name][level] |= duality_to_json(self_duality(means[1], classifier.weights))
            values[name][level]["nc4"] = nearest_mean_disagreement(split, means[0], classifier, mesh)
    return CollapseTable(values, tuple(left_out), np.asarray(splits[0][0].class_distances))


def _of_level(fine: ClassStatistics, super_class: tuple[int, ...], level: str) -> ClassStatistics:
    owner = jnp.asarray(super_class, jnp.int32)
    return fine if level == "fine" else merge_classes(fine, owner, max(super_class) + 1)


def _reasons(
    train: Labelled, test: Labelled | None, coarse: int, fine: int, classifier: Classifier | None
) -> Iterator[str]:
    if coarse == fine:
        yield "coarse and within: no label map that merges classes"
    if test is None:
        yield "test: there is no test split"
    if classifier is None:
        yield NO_CLASSIFIER
    elif len(classifier.weights) not in (coarse, fine):
        known = f"{coarse} coarse or {fine} fine" if coarse < fine else f"{fine}"
        yield f"nc3 and nc4: the classifier has {len(classifier.weights)} classes, not {known}"
    elif coarse < fine:
        other = "fine" if len(classifier.weights) == coarse else "coarse"
        yield f"nc3 and nc4, {other}: the classifier has {len(classifier.weights)} classes"
    if train.rows.shape[1] > MOST_FEATURES:
        yield f"vci and effective_rank: more than {MOST_FEATURES} features ({train.rows.shape[1]})"


def _odd_classes(split: str, counts: Float[np.ndarray, "f"]) -> Iterator[str]:
    empty, single = np.flatnonzero(counts == 0).tolist(), np.flatnonzero(counts == 1).tolist()
    if empty:
        yield f"{split}: no example of class {_listed(empty)}; measured over the other classes"
    if single:
        yield f"{split}: one example of class {_listed(single)}: it has no spread, and a silhouette of 0"


def _listed(numbers: list[int], most: int = 5) -> str:
    return ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} others" if len(numbers) > most else "")


def split_to_json(found: Split, *, merges: bool) -> dict[str, Any]:
    """Plain numbers of one split; None where there is none."""
    content = {"fine": level_to_json(found.fine), "all": {"effective_rank": _number(found.effective_rank)}}
    if not merges:
        return content
    within = found.within
    return content | {
        "coarse": level_to_json(found.coarse),
        "within": {
            **{f"distance_{name}": _number(value) for name, value in within.distances._asdict().items()},
            "explained_variance": _number(within.explained.all),
            "explained_by_super_class": [_number(x) for x in within.explained.of_super_class],
            "silhouette": _number(within.silhouette),
            "silhouette_cosine": _number(within.silhouette_cosine),
            "c1": _number(within.intraclass.c1),
            "c2": _number(within.c2),
            "c3": _number(within.intraclass.c3),
            "c4": _number(within.c4),
        },
    }


def level_to_json(found: Level) -> dict[str, Any]:
    """Plain numbers of one level; those of a classifier are still None."""
    geometry = found.geometry
    return {
        "nc1": _number(found.collapse.nc1),
        "nc1_ratio": _number(found.collapse.nc1_ratio),
        "separation": _number(found.separation),
        "cdnv": _number(found.cdnv),
        "vci": _number(found.spectrum.vci),
        "nc2_equinorm": _number(geometry.equinorm),
        "nc2_equiangularity": _number(geometry.equiangularity),
        "nc2_angle": _number(geometry.angle),
        "nc2_etf": _number(geometry.etf),
        **dict.fromkeys(("nc3", "nc3_etf", "nc3_equinorm", "nc4")),
        "effective_rank_means": _number(geometry.effective_rank),
        "effective_rank_within": _number(found.spectrum.effective_rank_within),
        "cosine_spectrum": [_number(x) for x in geometry.cosine_spectrum],
    }


def duality_to_json(found: SelfDuality) -> dict[str, Any]:
    """Plain numbers of NC3."""
    return {"nc3": _number(found.duality), "nc3_etf": _number(found.etf), "nc3_equinorm": _number(found.equinorm)}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
