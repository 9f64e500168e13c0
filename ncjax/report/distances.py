# SPDX-License-Identifier: Apache-2.0
"""Which class distances a page draws: of the headline's setting and its controls, over epochs and seeds."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from ncjax.examples import Examples
from ncjax.report.groups import KINDS, Group
from ncjax.report.heat_maps import SPLITS, DistanceMap

DRAWN = ("trained", "fine", "shuffled", "features")


def distance_maps(groups: Sequence[Group], main: Group | None, examples: Examples | None) -> list[DistanceMap]:
    """Means over seeds at every epoch; random initialisation is epoch 0 of each network, where that was not kept.

    Args:
        groups: settings at every epoch.
        main: the setting of the headline, which comes first; None: there is none.
        examples: tell which classes a split has; distances of others are left out.
    """
    under = main.setting.super_class if main else None
    chosen: dict[str, Group] = {main.kind: main} if main else {}
    for group in groups:
        if group.kind in DRAWN and (under is None or group.setting.super_class == under):
            chosen.setdefault(group.kind, group)
    start = [g for g in groups if g.kind == "random_init" and (under is None or g.setting.super_class == under)]
    found = list[DistanceMap]()
    for kind, one in chosen.items():
        epochs = [group for group in groups if group.setting == one.setting]
        first = [g for g in start if g.layer == one.layer][:1] if all(group.epoch for group in epochs) else []
        title = f"{KINDS.get(kind, kind)}: {one.label_map}"
        found += [drawn for group in (*first, *epochs) for drawn in _maps(group, title, examples)]
    if not chosen:
        found = [drawn for group in start[:1] for drawn in _maps(group, KINDS["random_init"], examples)]
    return found


def _maps(group: Group, title: str, examples: Examples | None) -> Iterator[DistanceMap]:
    for split, name in zip(SPLITS, ("class_distances", "test_distances"), strict=True):
        matrices = [np.array(getattr(row, name), np.float64) for row in group.rows if getattr(row, name)]
        if matrices and len({one.shape for one in matrices}) == 1:
            mean = np.mean(matrices, axis=0)
            present = _present(examples, split, len(mean))
            mean[~(present[:, None] & present[None, :])] = np.nan
            yield DistanceMap(title, group.epoch or 0, split, mean, len(matrices))


def _present(examples: Examples | None, split: str, classes: int) -> Bool[np.ndarray, "f"]:
    """Which classes have an example in a split; all, where that is not known."""
    labels = None if examples is None else examples.train_labels if split == "train" else examples.test_labels
    if labels is None or not len(labels) or labels.max() >= classes:
        return np.ones(classes, bool)
    return np.bincount(labels, minlength=classes) > 0
