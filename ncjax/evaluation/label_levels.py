# SPDX-License-Identifier: Apache-2.0
"""Which super-class each fine class belongs to, for the network that is measured."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32

from ncjax.data.label_maps import LabelMap
from ncjax.errors import UserError

SuperClasses = tuple[int, ...]  # coarse label of each fine class
AnyLabelMap = str | Sequence[int] | LabelMap


def super_classes(
    label_map: AnyLabelMap | None,
    fine: Mapping[str, Int32[np.ndarray, "_"]],
    class_names: Sequence[str] = (),
    names: Sequence[str] = (),
) -> SuperClasses:
    """The super-class of each fine class; each class is its own where there is no label map.

    Args:
        label_map: a spec such as `mod:5` or `file:map.json`, the coarse label of each fine class, or a `LabelMap`.
        fine: labels of the splits by name.
        class_names: of the fine classes; empty: there are as many classes as the largest label says.
        names: of the super-class of each class, for `superclass`; empty: not known.

    Raises:
        UserError: the label map does not fit, a label is out of its range, or there is one class alone.
    """
    largest = {name: int(labels.max(initial=0)) for name, labels in fine.items()}
    classes = max(len(class_names), max(largest.values()) + 1)
    if classes < 2:
        raise UserError("all labels are 0, but collapse is measured between two classes or more")
    if label_map is None:
        return tuple(range(classes))
    if isinstance(label_map, str):
        known = tuple(class_names) if len(class_names) == classes else tuple(map(str, range(classes)))
        label_map = LabelMap.parse(label_map, known, names)
    elif not isinstance(label_map, LabelMap):
        label_map = LabelMap.merge(label_map)
    if label_map.super_class is None:
        raise UserError(f"label map {label_map.name} does not merge classes; use one such as mod:5 or file:map.json")
    return _checked(label_map.super_class, largest, class_names)


def _checked(owner: SuperClasses, largest: Mapping[str, int], class_names: Sequence[str]) -> SuperClasses:
    for name, label in largest.items():
        if label >= len(owner):
            raise UserError(f"{name} label {label} is out of range: the label map has {len(owner)} classes, from 0")
    if class_names and len(owner) != len(class_names):
        few = ", ".join(class_names[:3]) + ", ..." * (len(class_names) > 3)
        raise UserError(f"the label map has {len(owner)} classes, but the labels have {len(class_names)}: {few}")
    return owner


def merges(owner: SuperClasses) -> bool:
    """Whether some super-class has several fine classes."""
    return max(owner) + 1 < len(owner)
