# SPDX-License-Identifier: Apache-2.0
"""The networks that are evaluated: each member, at each epoch and layer, with its labels and its classifier."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int32

from ncjax.collapse.plan import NO_CLASSIFIER
from ncjax.collapse.reading import Classifier, Labelled
from ncjax.config import MeshConfig
from ncjax.data.label_maps import LabelMap
from ncjax.distributed.mesh import row_mesh
from ncjax.distributed.processes import own_share, sum_over_processes
from ncjax.errors import UserError
from ncjax.evaluation.label_levels import AnyLabelMap, SuperClasses, super_classes
from ncjax.features.arrays import BLOCK_BYTES
from ncjax.features.feature_set import FeatureSet, SplitFeatures, as_heads, classifier_layer
from ncjax.features.frames import Survey, find_frame, survey
from ncjax.ops.xla import BRIEF
from ncjax.results import Measurement, Row
from ncjax.storage.arrays import Frame, FramedRows, Rows, frame_of
from ncjax.training.members import Member

Level = Literal["coarse", "fine"]
NOT_KEPT = "the classifier was not kept with the features; import or train again, with a network that gives it"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Features of one network at one layer, checked.

    Attributes:
        row: who it is; nothing is measured yet but accuracies.
        train: rows with NaN have weight 0; in units in which float32 is long enough.
        test: in the same units; None: there is no test split.
        super_class: of each fine class; each its own where no label map merges classes.
        classifier: of features in these units; None: nc3 and nc4 are left out; `no_classifier` says why.
        classifier_level: of its classes; None: decided by their number.
        mesh: over which examples are sharded; None: one device.
        setting: what networks that differ only by their seed share.
    """

    row: Row
    train: Labelled
    test: Labelled | None
    super_class: SuperClasses
    classifier: Classifier | None = None
    classifier_level: Level | None = None
    no_classifier: str = NO_CLASSIFIER
    mesh: Mesh | None = None
    setting: tuple[object, ...] = ()


def list_networks(
    sets: Sequence[FeatureSet], label_map: AnyLabelMap | None, classifier: tuple[Any, Any] | None
) -> list[Network]:
    """All members of all sets at all layers, in this order: set, layer, member.

    Args:
        sets: such as one for each epoch; all on the same examples.
        label_map: overrides those of the members; None: their own.
        classifier: weights and bias that override those of the sets.

    Raises:
        UserError: the sets are of different examples, or labels, label map and classifier do not fit.
    """
    for one in sets[1:]:
        if not np.array_equal(one.train.labels, sets[0].train.labels):
            raise UserError("features of different examples cannot be evaluated together; evaluate them one by one")
    return [network for one in sets for network in _networks(one, label_map, classifier)]


def _networks(
    features: FeatureSet, label_map: AnyLabelMap | None, classifier: tuple[Any, Any] | None
) -> Iterator[Network]:
    fine = {"train": features.train.labels} | ({"test": features.test.labels} if features.test else {})
    overriding = (
        None if label_map is None else super_classes(label_map, fine, features.class_names, features.super_classes)
    )
    mesh = row_mesh(features.mesh or _mesh_for(features))
    read = classifier_layer(features.layers)
    for layer in features.layers:
        for index, name in enumerate(features.names):
            member = features.members[index] if features.members else None
            own = _own_map(member, features)
            owner = overriding or super_classes(own, fine, features.class_names)
            train, train_left_out = _labelled("train", features.train, layer, index)
            frame = frame_of(train.rows)
            test, test_left_out = _labelled("test", features.test, layer, index, frame) if features.test else (None, ())
            head, level, reason = _classifier(features, classifier, index, member, owner)
            if layer != read and head is not None:
                head, reason = None, f"the classifier reads the layer {read}, not {layer}"
            row = _row(features, name, index, member, layer, owner, (*train_left_out, *test_left_out))
            yield Network(
                row=row,
                train=train,
                test=test,
                super_class=owner,
                classifier=None if head is None else _in_frame(head, frame),
                classifier_level=level,
                no_classifier=reason,
                mesh=mesh,
                setting=(features.epoch, layer, *_setting(member)),
            )


def _mesh_for(features: FeatureSet) -> MeshConfig:
    """All devices for features that one needs long for; small ones take less time than compilation for several."""
    numbers = max(math.prod(rows[0].shape) for rows in features.train.layers.values())
    return MeshConfig(data=0 if numbers > BRIEF else 1)


def _own_map(member: Member | None, features: FeatureSet) -> LabelMap | None:
    """The label map of a member where it merges classes, else that which serves in its stead."""
    return member.label_map if member and _merges(member.label_map, features) else features.default_map


def _merges(label_map: LabelMap, features: FeatureSet) -> bool:
    return label_map.super_class is not None and label_map.classes < len(features.class_names)


def _setting(member: Member | None) -> tuple[object, ...]:
    return (member.label_map.name, member.lr, member.weight_decay) if member else ()


def _row(
    features: FeatureSet,
    name: str,
    index: int,
    member: Member | None,
    layer: str,
    owner: SuperClasses,
    left_out: tuple[str, ...],
) -> Row:
    if member is None:
        common: dict[str, Any] = {"kind": features.kind}
    else:
        kind = "trained" if _merges(member.label_map, features) else member.label_map.name.split(":")[0]
        common = {
            "kind": "random_init" if features.epoch == 0 else kind,
            "member": index,
            "label_map": member.label_map.name,
            "lr": member.lr,
            "weight_decay": member.weight_decay,
            "seed": member.seed,
        }
    measurements = tuple(_accuracies(features, index, member)) if features.epoch != 0 and member else ()
    return Row(
        name=name,
        epoch=features.epoch,
        layer=layer,
        super_class=owner,
        measurements=measurements,
        left_out=left_out,
        **common,
    )


def _accuracies(features: FeatureSet, index: int, member: Member) -> Iterator[Measurement]:
    """On the labels that a member was trained on, over the classes that it has."""
    for name, split in (("train", features.train), ("test", features.test)):
        if split is not None and split.logits is not None and split.targets is not None:
            right = _right(split.logits[index], split.targets[index], member.label_map.classes)
            yield Measurement(metric="accuracy", split=name, level="coarse", value=right / len(split.labels))


def _right(logits: Rows, targets: Int32[np.ndarray, "n"], classes: int) -> int:
    """How many examples are classified as they are labelled; each process reads its own part, a block at a time."""
    share, size, right = own_share(len(targets)), max(1, BLOCK_BYTES // (4 * logits.shape[1])), 0
    for first in range(share.start, share.stop, size):
        rows = slice(first, min(first + size, share.stop))
        right += int((np.asarray(logits[rows])[:, :classes].argmax(-1) == targets[rows]).sum())
    return int(sum_over_processes(np.asarray(right, np.int64)))


def _labelled(
    name: str, split: SplitFeatures, layer: str, index: int, frame: Frame | None = None
) -> tuple[Labelled, tuple[str, ...]]:
    """A split in the units of a frame, or of the frame that fits it best."""
    rows = split.layers[layer][index]
    found: Survey = survey(rows, by_shares=True)
    bad = np.flatnonzero(~found.finite).tolist()
    count = len(split.labels)
    if len(bad) == count:
        raise UserError(f"every row of the {name} features holds NaN or infinite numbers; was the training diverging?")
    framed = FramedRows(rows, find_frame(rows, found) if frame is None else frame)
    if not bad:
        return Labelled(framed, split.labels), ()
    shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    line = f"{name}: {len(bad)} of {count} rows, which hold NaN or infinite numbers (rows {shown})"
    return Labelled(framed, split.labels, found.finite.astype(np.float32)), (line,)


class _Head(NamedTuple):
    """`x -> W x + b` of features as they are."""

    weights: Float[np.ndarray, "k d"]
    bias: Float[np.ndarray, "k"]


def _in_frame(head: _Head, frame: Frame) -> Classifier:
    """The classifier of features in the units of a frame, up to a positive factor and a number for all classes.

    `W (o + s z) + b = (s W) z + (W o + b)`, in float64; neither the decisions nor self-duality change with the two.
    """
    weights, offset = head.weights.astype(np.float64), head.bias.astype(np.float64) + head.weights @ frame.origin
    bias = (offset - offset.mean()) / frame.scale
    largest = np.abs(weights).max()
    if largest > 0 and frame.scale != 1:
        weights, bias = weights / largest, bias / largest
    return Classifier(jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32))


def _classifier(
    features: FeatureSet,
    supplied: tuple[Any, Any] | None,
    index: int,
    member: Member | None,
    owner: SuperClasses,
) -> tuple[_Head | None, Level | None, str]:
    """The classifier of a network on the classes that it has, their level, or why there is none."""
    if supplied is not None or (member is None and features.classifier is not None):
        heads = features.classifier
        if supplied is not None:
            width = features.train.layers[classifier_layer(features.layers)][index].shape[1]
            heads = as_heads(*supplied, width, len(features.names))
        assert heads is not None
        return _Head(heads.weights[index].T, heads.bias[index]), None, ""
    if member is None:
        return None, None, NO_CLASSIFIER
    own = member.label_map
    if own.super_class is None:
        return None, None, f"the classes of {own.name} are no function of the fine labels"
    if features.classifier is None:
        return None, None, NOT_KEPT
    level: Level = "fine" if own.classes == len(own.super_class) else "coarse"
    if level == "coarse" and own.super_class != owner:
        return None, None, f"the classifier is of {own.name}, not of the label map that is evaluated"
    weights, bias = (array[index, ..., : own.classes] for array in features.classifier)
    return _Head(weights.T, bias), level, ""
